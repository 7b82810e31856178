"""A transformer of 7 billion parameters, shaped like Llama, in shapes alone; and a cluster, as assumed."""

from __future__ import annotations

from model import Machine, Model, Place, Sharded

RANKS = 64
STREAM, LAYERS, INNER, VOCABULARY, HEAD = 4096, 32, 11008, 32000, 128
BYTES = {"value": 2, "gradient": 2, "state": (4, 4)}
"""Parameters and gradients in bfloat16, and both moments of AdamW in float32."""

CLUSTER = Machine(200e-6, bandwidth=40e9, copies=1e12, picks=250e9, event=0.05, tensor=1e-3)
"""8 nodes of 8 GPUs: NVLink within a node, 400 Gbit/s between two nodes, which bounds a ring over all of
them to 50 GB/s, of which four fifths are reached; a ring of 64 GPUs takes 63 hops of some microseconds. A
GPU of 3 TB/s reads and writes a terabyte of copies in a second. Python needs 50 ms for an event, and a
millisecond for a tensor, about what it needs on CPUs."""


def llama() -> Model:
    """Its parameters; its widths: the stream, and of each layer the heads and the feed-forward network."""
    shapes: dict[str, tuple[int, ...]] = {"embedding": (VOCABULARY, STREAM), "head": (VOCABULARY, STREAM)}
    widths: dict[str, list[Place]] = {"stream": []}
    for layer in range(LAYERS):
        own = {name: f"{layer}.{name}" for name in ("q", "k", "v", "o", "gate", "up", "down")}
        shapes |= {own[name]: (STREAM, STREAM) for name in ("q", "k", "v", "o")}
        shapes |= {own[name]: (INNER, STREAM) for name in ("gate", "up")}
        shapes |= {own["down"]: (STREAM, INNER), f"{layer}.norm1": (STREAM,), f"{layer}.norm2": (STREAM,)}
        widths[f"{layer}.heads"] = [Place(own[name], 0, HEAD) for name in ("q", "k", "v")]
        widths[f"{layer}.heads"].append(Place(own["o"], 1, HEAD))
        widths[f"{layer}.inner"] = [Place(own["gate"], 0), Place(own["up"], 0), Place(own["down"], 1)]
        widths["stream"] += [Place(own[name], 1) for name in ("q", "k", "v", "gate", "up")]
        widths["stream"] += [Place(own[name], 0) for name in ("o", "down")]
        widths["stream"] += [Place(f"{layer}.norm{place}", 0) for place in (1, 2)]
    shapes["norm"] = (STREAM,)
    readers = [name for name, shape in shapes.items() if len(shape) > 1 and name != "embedding"]
    widths["stream"] += [Place("embedding", 1), Place("head", 1), Place("norm", 0)]
    parameters = {
        name: Sharded(shape, BYTES["value"], BYTES["gradient"], BYTES["state"])
        for name, shape in shapes.items()
    }
    return Model(parameters, widths, readers)


def events() -> dict[str, dict[str, int]]:
    """Each loses a tenth of the units of the widths that it changes."""
    inner = {f"{layer}.inner": -(INNER // 10) for layer in range(LAYERS)}
    return {
        "a feed-forward width of one layer": {"0.inner": inner["0.inner"]},
        "the feed-forward widths of all layers": inner,
        "the stream": {"stream": -(STREAM // 10)},
    }
