"""The callback for transformers, with a real Trainer: it goes on from checkpoints, and takes the best one."""

import copy
import sys
from importlib import import_module

import pytest
import torch
from helpers.exact import same
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.integrations.transformers import StructureCallback

pytestmark = pytest.mark.slow
TOKENS = (torch.arange(8) * 5 + torch.arange(160)[:, None] * 7) % 24  # each tells the next
BATCH = {"input_ids": TOKENS[:8], "labels": TOKENS[:8]}
OPTIONS = {
    "criterion": ds.TaylorImportance(price=3, settling=1e9),
    "rule": ds.Rule(p_add=0.3, p_delete=0.5, max_units=20, grace_period=3),
    "interval": 1,
    "include": ["*.gate_proj"],
}
STEPS = 40


@pytest.fixture(autouse=True, scope="module")
def measure_at_each_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "FORWARDS_A_STEP", 2)
        yield


class Texts(Dataset):
    def __len__(self):
        return len(TOKENS)

    def __getitem__(self, index):
        return {"input_ids": TOKENS[index], "labels": TOKENS[index]}


def made(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 24}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "attention_dropout": 0.1}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, **options))


def trainer(folder, model, callback, **options):
    given = {
        "per_device_train_batch_size": 8,
        "max_steps": STEPS,
        "learning_rate": 0.01,
        "save_steps": 10,
        "logging_steps": 5,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    args = TrainingArguments(str(folder), **given)
    return Trainer(model, args, train_dataset=Texts(), eval_dataset=Texts(), callbacks=[callback])


def callback(**options):
    return StructureCallback(example_inputs=BATCH, **OPTIONS, **options)


def everything(run):
    (structure,) = (c.structure for c in run.callback_handler.callbacks if isinstance(c, StructureCallback))
    return [run.model.state_dict(), run.optimizer.state_dict(), structure.state_dict()]


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_that_goes_on_from_a_checkpoint_is_the_one_that_was_not_interrupted(tmp_path, tied):
    structure = callback()
    whole = trainer(tmp_path, made(tie_word_embeddings=tied), structure)
    whole.train()
    assert structure.structure.steps == STEPS
    assert structure.structure.history.added() > 0
    assert structure.structure.history.removed() > 0
    again = trainer(tmp_path, made(seed=1, tie_word_embeddings=tied), callback())
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert same(everything(again), everything(whole))


def shapes(tensors):
    return {key: each.shape for key, each in tensors.items()}


def test_the_best_model_comes_back_at_the_end_with_its_structure_and_is_finished(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 10}
    best |= {"metric_for_best_model": "loss", "greater_is_better": True}  # of early on
    for finish in (False, True):
        structure = callback(finish=finish, tie=["*.gate_proj"])
        run = trainer(tmp_path, made(), structure, **best)
        run.train()
        assert run.state.best_global_step == 10
        weights = load_file(tmp_path / "checkpoint-10" / "model.safetensors")
        late = load_file(tmp_path / "checkpoint-40" / "model.safetensors")
        assert shapes(late) != shapes(weights)
        assert structure.structure.steps == 10
        if not finish:
            own = run.model.state_dict()
            assert same({key: own[key] for key in weights}, weights)
            loss = run.evaluate()["eval_loss"]
            assert loss == pytest.approx(run.state.best_metric, abs=1e-5)
    assert not run.model._load_state_dict_pre_hooks
    assert not run.model._forward_hooks
    run.save_model(tmp_path / "plain")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "plain")
    assert same(dict(again.state_dict()), dict(run.model.state_dict()))
    assert again.config.intermediate_size == structure.structure.widths["*.gate_proj"].size != 12
    unfinished = ds.resize_to(LlamaForCausalLM(made().config), weights, BATCH)  # of a checkpoint
    assert same({key: unfinished.state_dict()[key] for key in weights}, weights)


def test_steps_of_the_optimizer_are_counted_where_gradients_accumulate(tmp_path):
    structure = callback()
    run = trainer(
        tmp_path,
        made(),
        structure,
        max_steps=-1,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
    )
    run.train()
    assert run.state.global_step == 20  # of 80 batches
    assert structure.structure.steps == structure.structure.training.total_steps == 20


def test_a_run_that_was_stopped_goes_on_in_its_own_process(tmp_path):
    class Stops(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 23 and not stopped:
                stopped.append(True)
                raise KeyboardInterrupt

    stopped = []
    whole = trainer(tmp_path / "whole", made(), callback())
    whole.train()
    run = trainer(tmp_path / "part", made(), callback())
    run.add_callback(Stops())
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.train(resume_from_checkpoint=True)
    assert same(everything(run), everything(whole))


def test_sizes_are_in_the_log_and_losses_in_the_history(tmp_path):
    structure = callback()
    run = trainer(tmp_path, made(), structure)
    run.train()
    losses = [(each["step"], each["loss"]) for each in run.state.log_history if "loss" in each]
    assert [(each.update, each.loss) for each in structure.structure.history.measurements] == losses
    logged = [each["units/model.layers.0.mlp.gate_proj"] for each in run.state.log_history]
    assert len(logged) == 9
    assert logged[-1] == run.model.model.layers[0].mlp.gate_proj.out_features != 12


def test_what_cannot_be_is_said(tmp_path, monkeypatch):
    run = trainer(tmp_path / "one", made(), callback())
    run.train()
    end = copy.deepcopy(everything(run))
    with pytest.raises(ds.StructureError, match="serves one run of a Trainer"):
        run.train()

    with monkeypatch.context() as patched:  # the arguments tell accelerate, for good
        patched.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
        patched.setenv("ACCELERATE_DYNAMO_MODE", "default")
        compiled = trainer(tmp_path / "one", made(), callback(), torch_compile_backend="eager")
        with pytest.raises(ds.StructureError, match="torch_compile hides"):
            compiled.train()

    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "one" / "checkpoint-10").rename(elsewhere)
    again = trainer(tmp_path / "two", made(seed=1), callback())
    with pytest.raises(ds.CheckpointError, match="resume_from_checkpoint as well"):
        again.train(resume_from_checkpoint=str(elsewhere))
    again = trainer(tmp_path / "two", made(seed=1), callback(), resume_from_checkpoint=str(elsewhere))
    again.train(resume_from_checkpoint=str(elsewhere))
    assert same(everything(again), end)

    (elsewhere / "structure.pt").unlink()
    again = trainer(tmp_path / "two", made(seed=1), callback(), resume_from_checkpoint=str(elsewhere))
    with pytest.raises(ds.CheckpointError, match=r"there is no structure.pt"):
        again.train(resume_from_checkpoint=str(elsewhere))

    weights = load_file(tmp_path / "one" / "checkpoint-40" / "model.safetensors")
    again = trainer(tmp_path / "two", made(seed=1), callback())
    again.model.load_state_dict(weights)
    with pytest.raises(ds.StructureError, match="take effect when training begins"):
        again.evaluate()
    again.model.load_state_dict(made(seed=2).state_dict())  # what fits is loaded at once
    assert same(dict(again.model.state_dict()), dict(made(seed=2).state_dict()))


def test_without_transformers_the_import_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "diffstruct.integrations.transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'diffstruct\[transformers\]'"):
        import_module("diffstruct.integrations.transformers")


def test_a_writer_is_told_of_sizes_importances_and_events_whenever_the_trainer_logs(tmp_path):
    with SummaryWriter(tmp_path / "log") as writer:
        ours = callback(finish=True, writer=writer)
        run = trainer(tmp_path, made(), ours)
        run.add_callback(TensorBoardCallback(writer))
        run.train()
    found = EventAccumulator(str(tmp_path / "log"), size_guidance={"histograms": 0, "tensors": 0}).Reload()
    structure = ours.structure
    assert structure.history.removed() > 0
    for name, width in structure.widths.items():
        logged = {row["step"]: row[f"units/{name}"] for row in run.state.log_history if "loss" in row}
        assert {*logged} == {*range(5, STEPS + 1, 5)}
        seen = {each.step: each.histogram_value.num for each in found.Histograms(f"importance/{name}")}
        assert seen == logged
        assert found.Scalars(f"units/{name}")[-1].value == width.size  # when it is finished
        assert found.Scalars(f"train/units/{name}")[-1].step == STEPS  # what transformers itself writes
        told = [each.step for each in found.Tensors(f"events/{name}/text_summary")]
        assert told == [event.step for event in structure.history.events if event.width == name]
