"""Two workers (gloo): each balances its own micro-batch, either wrapper averages what comes out."""

import pytest
import torch
import torch.distributed as dist
from fairseq.distributed import LegacyDistributedDataParallel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.methods.test_distillav import loss_of, net_input, tiny
from tests.targets.teacher_folders import write_teacher_folder

WORKERS = 2


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def work(rank: int, folder: str, teachers: list[str]) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meeting", world_size=WORKERS, rank=rank)
    found = {}
    for wrapper in ("c10d", "legacy"):
        model = tiny(teachers).train()
        batch = net_input(model, seed=rank)
        if wrapper == "c10d":
            wrapped = DistributedDataParallel(model, find_unused_parameters=True)
            loss_of(wrapped, batch)[0].backward()
        else:
            wrapped = LegacyDistributedDataParallel(model, dist.group.WORLD)
            loss_of(wrapped, batch)[0].backward()
            wrapped.all_reduce_grads()
        found[wrapper] = gradients(model)
    if rank == 0:
        torch.save(found, f"{folder}/gradients.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_average_gradients_that_each_has_balanced(tmp_path):
    teachers = [str(write_teacher_folder(tmp_path / name)) for name in ("first", "second")]
    torch.multiprocessing.start_processes(work, (str(tmp_path), teachers), WORKERS, start_method="fork")
    found = torch.load(tmp_path / "gradients.pt")
    alone = []
    for rank in range(WORKERS):
        model = tiny(teachers).train()
        loss_of(model, net_input(model, seed=rank))[0].backward()
        alone.append(gradients(model))
    for wrapper, averaged in found.items():
        assert averaged.keys() == alone[0].keys()
        for name, gradient in averaged.items():
            expected = (alone[0][name] + alone[1][name]) / WORKERS
            scale = expected.abs().max().clamp(min=1e-3)
            assert (gradient - expected).abs().max() / scale < 1e-3, (wrapper, name)
