"""Inputs that the fuzzers begin with: what the tests and examples hold. seeds.py FIXTURES OUT"""
import json
import pathlib
import shutil
import sys

fixtures, out = map(pathlib.Path, sys.argv[1:])
here = pathlib.Path(__file__).resolve().parents[1]
JOB = {"name": "tiny", "model": {"config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 256, "n_positions": 16}},
       "data": {"text": "text.txt", "sequence_length": 16}, "batch": {"global": 8}, "train": {"steps": 1}}
REQUEST = {"job": JOB, "cluster": "1x2xt4", "options": {"constrain": ["tensor=1,2"], "top": 2, "objective": "cost", "prices": ["t4=0.4"], "reasons": False}}
HTTP = ["/v1/plans/abc/timeline?x=%41&y=b+c\napplication/json;q=0.8, */*", "/v1/jobs?after=1\n00-45a82d5c9d3c0e3196310ec754f2c623-3f3b44e3e212eb34-01",
        "/..%2f\nhttp://127.0.0.1:8080", "127.0.0.1:8080\n2-17"]


def put(fuzzer, name, content):
    folder = out / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


for i, text in enumerate(HTTP):
    put("fuzz_http", f"{i}", text.encode())
NODE = {"cores": 2, "cpu_model": "a", "memory_bytes": 1, "cuda_devices": [{"name": "b", "memory_bytes": 2}], "job": "c"}
put("fuzz_request", "request.json", json.dumps(REQUEST).encode())
put("fuzz_request", "node.json", json.dumps(NODE).encode())
put("fuzz_job", "job.json", json.dumps(JOB).encode())
for path in [*here.glob("examples/*/*.yaml"), *here.glob("examples/*/*.json"), *here.glob("tests/**/golden/*.json")]:
    content = path.read_bytes()
    if len(content) < 1 << 16:
        put("fuzz_job" if path.suffix == ".yaml" else "fuzz_plan", path.name, content)
        if path.suffix == ".json":
            put("fuzz_json", path.name, content)
for path in fixtures.glob("*.pt2"):
    if path.stat().st_size < 1 << 20:
        (out / "fuzz_pt2").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out / "fuzz_pt2" / path.name)
