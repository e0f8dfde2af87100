"""Trains a small network with PyTorch on the device that the job was given, and reports what it found."""
import json
import os
import sys
import time
from pathlib import Path

try:
    import torch
except ImportError as error:
    sys.exit(
        f"pytorch_example: PyTorch is not installed for {sys.executable} ({error}).\n"
        "Install it where the jobs run: `apt-get install python3-torch` (CPU only), `pip install torch` (with CUDA),\n"
        "or use an image that brings it. Nothing was trained and no weights were written."
    )


def number_of_threads():
    """As many as the job has CPUs (the batch script sets OMP_NUM_THREADS), else what the process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))


def choose_device():
    """The first GPU of the job if it computes, else the CPU; says which and why. Returns (device, usable GPUs)."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not torch.cuda.is_available():
        if given not in ("", "-1", "NoDevFiles"):
            build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
            print(f"WARNING: the job was given GPU {given}, but PyTorch {torch.__version__} ({build}) cannot use it: training on the CPU")
        return torch.device("cpu"), 0
    try:
        torch.ones(1, device="cuda").add_(1).cpu()
    except (RuntimeError, AssertionError) as error:
        print(f"WARNING: the job was given GPU {given}, but it does not compute ({error}): training on the CPU")
        return torch.device("cpu"), 0
    return torch.device("cuda"), torch.cuda.device_count()


def train(device, params):
    """Learns y = sum(sin(x)) from made-up data. Returns the network and the mean loss of each epoch."""
    network = torch.nn.Sequential(
        torch.nn.Linear(8, params["hidden"]), torch.nn.Tanh(), torch.nn.Linear(params["hidden"], 1)
    ).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=params["lr"])
    losses = []
    for epoch in range(1, params["epochs"] + 1):
        total = 0.0
        for _ in range(params["steps"]):
            inputs = torch.rand(params["batch_size"], 8, device=device) * 2 - 1
            targets = inputs.sin().sum(dim=1, keepdim=True)
            loss = torch.nn.functional.mse_loss(network(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / params["steps"])
        print(f"epoch {epoch}/{params['epochs']} loss {losses[-1]:.6f}", flush=True)
    return network, losses


def write_atomically(path, write):
    """Whoever looks at the folder sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    write(temporary)
    os.replace(temporary, path)


def write_json(path, value):
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(value) + "\n", encoding="utf-8"))


def finite(values):
    """JSON has no NaN: a training that diverged reports null."""
    return [value if value == value and abs(value) != float("inf") else None for value in values]


def main():
    started = time.monotonic()
    given = json.loads(os.environ.get("JR_PARAMS") or "{}")
    params = {"epochs": 5, "steps": 20, "batch_size": 64, "hidden": 32, "lr": 0.05, "seed": 0, **given}
    result_dir = Path(os.environ["RESULT_DIR"])
    torch.set_num_threads(number_of_threads())
    torch.manual_seed(params["seed"])

    device, count = choose_device()
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    print(f"PyTorch {torch.__version__}, GPUs: {names if names else 'none'}, training on {device}", flush=True)
    network, losses = train(device, params)

    weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    write_atomically(result_dir / "weights" / "model.pth", lambda temporary: torch.save(weights, temporary))
    write_json(
        result_dir / "result.json",
        {
            "ok": True,
            "cuda_available": count > 0,
            "device_count": count,
            "device_names": names,
            "params": given,
            "device": str(device),
            "torch_version": torch.__version__,
            "losses": finite(losses),
            "seconds": round(time.monotonic() - started, 3),
        },
    )
    write_json(
        result_dir / "manifest.json",
        {
            "experimentId": params.get("experimentId") or f"job-{os.environ['JR_JOB_ID']}",
            "outputs": [{"id": "summary", "path": "result.json"}, {"id": "weights", "path": "weights/model.pth"}],
        },
    )
    print("saved weights/model.pth, result.json, manifest.json")


main()
