"""Train a small GPT on characters: an ordinary PyTorch script that shisuan can stop, move and resume.

It imports nothing of shisuan. The contract (docs/training.md) is a folder to save into, a path to resume from, a few
printed lines and SIGTERM. By hand: torchrun --nproc-per-node 2 gpt.py --steps 100
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F  # noqa: N812, everybody's name for it
from torch.nn.parallel import DistributedDataParallel

STOPPED = 143  # not 0: a run that was stopped is not a run that is finished


class Block(nn.Module):
    """Attention, then a layer that thinks about it."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.join(seen.transpose(1, 2).reshape(batch, length, width))
        return x + F.dropout(self.think(self.after(x)), self.dropout, self.training)


class GPT(nn.Module):
    """Characters in, scores of the next character out."""

    def __init__(self, letters, o):
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, o.width), nn.Embedding(o.context, o.width)
        self.blocks = nn.Sequential(*(Block(o.width, o.heads, o.dropout) for _ in range(o.layers)))
        self.norm, self.out = nn.LayerNorm(o.width), nn.Linear(o.width, letters)

    def forward(self, text):
        x = self.letter(text) + self.place(torch.arange(text.shape[1], device=text.device))
        return self.out(self.norm(self.blocks(x)))


class Run:
    """Everything that must come back after an interruption, and nothing else."""

    def __init__(self, options, device):
        text = Path(options.text).read_text(encoding="utf-8")
        self.letters = sorted(set(text))
        self.text = torch.tensor([self.letters.index(c) for c in text])
        torch.manual_seed(options.seed)  # every rank makes the same weights
        self.model = GPT(len(self.letters), options).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.lr)
        torch.manual_seed(options.seed + 1 + dist.get_rank())  # and forgets other things
        self.data = torch.Generator().manual_seed(options.seed + 1 + dist.get_rank())
        self.step, self.losses = 0, []
        self.options, self.device = options, device

    def batch(self):
        """Random pieces of the text, and the same pieces one character later."""
        at = torch.randint(len(self.text) - self.options.context, (self.options.batch, 1), generator=self.data)
        piece = self.text[at + torch.arange(self.options.context + 1)].to(self.device)
        return piece[:, :-1], piece[:, 1:]

    def save(self, folder):
        """All ranks together; the checkpoint appears under its name when it is complete."""
        random = torch.cat([torch.get_rng_state(), self.data.get_state()]).to(self.device)
        everyone = [torch.empty_like(random) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, random)
        if dist.get_rank() == 0:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            state |= {"step": self.step, "losses": self.losses, "random": [r.cpu() for r in everyone]}
            torch.save(state, folder / "saving.tmp")
            (folder / "saving.tmp").replace(folder / f"step-{self.step}")
            say("checkpoint", self.step)
        dist.barrier()

    def resume(self, path):
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], state["losses"]
        if dist.get_rank() >= len(state["random"]):
            return  # more ranks than wrote the checkpoint: this one keeps the random states it was made with
        own, data = state["random"][dist.get_rank()].cpu().chunk(2)
        torch.set_rng_state(own.clone())  # torch 2.13 crashes on a part of a tensor
        self.data.set_state(data.clone())


def say(word, value):
    """One line of the protocol, in one write, so that no other rank's output gets into it."""
    print(f"shisuan_{word}: {value}\n", end="", flush=True)


def agreed(flag, device):
    """True on every rank when it is on any: all must stop after the same step."""
    told = torch.tensor([bool(flag)], dtype=torch.int, device=device)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told.item())


def train(run, saving_in):
    """To the last step, or until SIGTERM; whether it is finished, and the seconds each step took."""
    options, stop, took = run.options, [], []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    model, rank, ranks = DistributedDataParallel(run.model), dist.get_rank(), dist.get_world_size()
    saved_at, told_at, told_step = run.step, time.perf_counter(), run.step
    while run.step < options.steps and not agreed(stop, run.device):
        began = time.perf_counter(), time.process_time()
        asked, expected = run.batch()
        loss = F.cross_entropy(model(asked).flatten(0, 1), expected.flatten())
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        run.step += 1
        time.sleep(options.pause)
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        run.losses.append(mean.item() / ranks)
        took.append((time.time(), time.perf_counter() - began[0], time.process_time() - began[1]))
        if rank == 0 and (run.step % options.tell == 0 or run.step in (1, options.steps)):
            tokens = (run.step - told_step) * options.batch * options.context * ranks
            now = time.perf_counter()
            rate, told_at, told_step = tokens / (now - told_at), now, run.step
            say("metric", json.dumps({"step": run.step, "loss": run.losses[-1], "tokens_per_s": round(rate)}))
            say("progress", f"{100 * run.step / options.steps:.1f}")
        if saving_in and run.step % options.save == 0:
            run.save(saving_in)
            saved_at = run.step
    if saving_in and saved_at != run.step:
        run.save(saving_in)
    return run.step >= options.steps, took


@torch.no_grad()
def sample(run, length, start="\n"):
    """Text as the model would go on."""
    run.model.eval()
    torch.manual_seed(run.options.seed)
    text = torch.tensor([[run.letters.index(start)]], device=run.device)
    for _ in range(length):
        scores = run.model(text[:, -run.options.context :])[0, -1]
        text = torch.cat([text, torch.multinomial(F.softmax(scores, -1), 1)[None]], 1)
    return "".join(run.letters[i] for i in text[0].tolist()).strip()


def finish(run, took, folder):
    """The model, its losses, a sample, and facts about the run."""
    first = torch.tensor([took[0][0] if took else time.time()], dtype=torch.float64, device=run.device)
    firsts = [torch.empty_like(first) for _ in range(dist.get_world_size())]
    dist.all_gather(firsts, first)
    if dist.get_rank():
        return
    weights = hashlib.sha256()
    for name, tensor in sorted(run.model.state_dict().items()):
        weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    torch.save({"letters": run.letters, "model": run.model.state_dict()}, folder / "model.pt")
    with (folder / "loss.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss"), *enumerate(run.losses, start=1)])
    with (folder / "steps.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ended_s", "wall_s", "cpu_s"), *took])
    words = sample(run, run.options.sample)
    (folder / "sample.txt").write_text(words + "\n", encoding="utf-8")
    print(f"\n--- a sample after {run.step} steps ---\n{words}\n---", flush=True)
    parameters = sum(p.numel() for p in run.model.parameters())
    facts = {"steps": run.step, "loss": run.losses[-1], "parameters": parameters, "weights_sha256": weights.hexdigest()}
    say("done", json.dumps(facts | {"first_step_ms": [round(1_000 * t.item()) for t in firsts]}))


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", default=str(here / "sonnets.txt"))
    for name, value in {"steps": 400, "batch": 16, "context": 64, "width": 64, "layers": 2, "heads": 4, "seed": 7,
                        "save": 50, "tell": 5, "sample": 300}.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between steps, to have time to watch")
    options = parser.parse_args()

    torch.set_num_threads(1)  # sums in one order: a resumed run gives the same bits
    backend = os.environ.get("SHISUAN_BACKEND", "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    dist.init_process_group(backend)
    run = Run(options, device)
    if resume := os.environ.get("SHISUAN_RESUME_FROM"):
        run.resume(resume)
        print(f"rank {dist.get_rank()} goes on after step {run.step}", flush=True)
    saving_in = os.environ.get("SHISUAN_CHECKPOINT_DIR")
    finished, took = train(run, Path(saving_in) if saving_in else None)
    if finished:
        finish(run, took, Path(os.environ.get("SHISUAN_OUTPUTS", ".")))
    dist.destroy_process_group()
    raise SystemExit(0 if finished else STOPPED)


if __name__ == "__main__":
    main()
