"""Runs a script of the dataset with the job's parameters, and sees to it that there is a result and a manifest."""
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

# Linux takes no single argument of 128 KiB (MAX_ARG_STRLEN in execve(2)).
LONGEST_ARGUMENT = 131_071


def fail(message):
    sys.exit(f"pytorch_infer: {message}")


def find_script(dataset, name):
    """The script's path: a regular file that lies in the dataset, also after links are followed."""
    if not isinstance(name, str) or not name or name.startswith("/") or ".." in name.split("/"):
        fail("script must be a path in the dataset, relative and without `..`")
    path = (dataset / name).resolve()
    if dataset.resolve() not in path.parents:
        fail(f"script {name!r} lies outside the dataset")
    if not path.is_file():
        there = sorted(str(each.relative_to(dataset)) for each in dataset.rglob("*.py"))[:20]
        fail(f"the dataset has no file {name!r}; its Python files: {', '.join(there) or 'none'}")
    return path


def words(args):
    return shlex.split(args) if isinstance(args, str) else [str(each) for each in args]


def run(command):
    """The script's exit code as a shell has it: 128 + N when signal N ended it. A signal to us is passed on."""
    child = subprocess.Popen(command)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(each, lambda number, _: child.send_signal(number))
    code = child.wait()
    return code if code >= 0 else 128 - code


def write_json(path, value):
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def outputs_of(result_dir):
    """result.json as `summary`, and every other file under its stem, its name where the stem is taken, else its path."""
    outputs = {"summary": "result.json"}
    paths = []
    for folder, _, names in os.walk(result_dir):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                paths.append(path.relative_to(result_dir))
    for path in sorted(paths, key=lambda each: (len(each.parts), str(each))):
        if str(path) in ("result.json", "manifest.json"):
            continue
        free = [each for each in (path.stem, path.name, str(path), f"./{path}") if each not in outputs]
        outputs[free[0]] = str(path)
    return [{"id": name, "path": path} for name, path in outputs.items()]


def main():
    params = json.loads(os.environ.get("JR_PARAMS") or "{}")
    dataset = Path(os.environ["DATASET_DIR"])
    result_dir = Path(os.environ["RESULT_DIR"])
    script = find_script(dataset, params.get("script"))
    text = json.dumps(params, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) > LONGEST_ARGUMENT:
        fail("the parameters are too long for a command line: put them into a file of the dataset")

    code = run([sys.executable, str(script), "--data", str(dataset), "--params", text, *words(params.get("args", []))])

    if not os.path.lexists(result_dir / "result.json"):
        result = {"ok": code == 0, "script": params["script"], "exit_code": code, "params": params}
        write_json(result_dir / "result.json", result)
    if not os.path.lexists(result_dir / "manifest.json"):
        experiment = params.get("experimentId") or f"job-{os.environ['JR_JOB_ID']}"
        write_json(result_dir / "manifest.json", {"experimentId": experiment, "outputs": outputs_of(result_dir)})
    sys.exit(code)


main()
