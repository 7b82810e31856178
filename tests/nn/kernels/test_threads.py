"""Parts of a batch in several threads, and kernels in several threads of the user."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from helpers.kernels import EVERY_KERNEL, KERNELS, arguments, cotangents

from diffstruct.nn.kernels import threads
from diffstruct.nn.kernels.lstm import lstm
from diffstruct.nn.kernels.sequence import _sizes


@EVERY_KERNEL
@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_of_a_batch_in_parallel_give_the_same(kind, count, monkeypatch):
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind, batch=7, inputs=5, units=20)

    def run():
        results = kernel(*tensors)
        return [*results, *torch.autograd.grad(results, tensors, cotangents(results))]

    alone = run()
    cuts = [(7 * part // count, 7 * (part + 1) // count) for part in range(count)]
    monkeypatch.setattr(threads, "parts", lambda batch, work: cuts)
    assert _sizes(tensors)[1] == cuts
    together = run()
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
    assert all(torch.equal(one, other) for one, other in zip(together, run(), strict=True))


def test_a_batch_is_cut_only_where_each_part_has_enough_to_do():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert threads.parts(32, threads.ENOUGH) == [(0, 32)]
        assert threads.parts(32, 3 * threads.ENOUGH) == [(0, 10), (10, 21), (21, 32)]
        assert threads.parts(32, 99 * threads.ENOUGH) == [(0, 8), (8, 16), (16, 24), (24, 32)]
        assert threads.parts(2, 99 * threads.ENOUGH) == [(0, 1), (1, 2)]
        assert threads.parts(1, 99 * threads.ENOUGH) == [(0, 1)]
        torch.set_num_threads(1)
        assert threads.parts(32, 99 * threads.ENOUGH) == [(0, 32)]
    finally:
        torch.set_num_threads(before)


def test_an_error_in_another_thread_is_raised():
    def fail(part):
        if part:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.run(fail, [(0,), (1,)])


FORKED = """
import os, sys, warnings
from diffstruct.nn.kernels import threads
warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads: just that
calls = [(part,) for part in range(3)]
done = []
threads.run(done.append, calls)
child = os.fork()
if not child:
    done.clear()
    threads.run(done.append, calls)
    os._exit(sorted(done) != [0, 1, 2])
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_are_started_anew_in_a_forked_process():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


def test_two_threads_may_use_a_kernel_at_once():
    expected, found = [], {}
    tensors = [arguments("LSTM", batch=8, units=20, seed=seed, requires_grad=False) for seed in range(2)]
    expected = [lstm(*each)[0] for each in tensors]

    def work(index):
        found[index] = [lstm(*tensors[index])[0] for _ in range(50)]

    workers = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(2):
        assert all(torch.equal(output, expected[index]) for output in found[index])
