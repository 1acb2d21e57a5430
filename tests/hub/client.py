"""Downloads from the stand-in for the Hub with the Hub's own client, unchanged.

That the client gets what it expects, and what the folder has, is the proof that the server speaks
the protocol which the browser tests then rely on. `cargo xtask test` runs it:

    HF_ENDPOINT=http://127.0.0.1:PORT HF_HOME=SCRATCH python client.py OWNER/NAME FOLDER COMMIT
"""

import hashlib
import json
import os
import sys
import urllib.request
from pathlib import Path

from huggingface_hub import HfApi, __version__, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ENDPOINT = os.environ["HF_ENDPOINT"]
TOKEN = "hf_test"
ID, FOLDER, COMMIT = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def control(**settings):
    request = urllib.request.Request(f"{ENDPOINT}/_control", json.dumps(settings).encode())
    urllib.request.urlopen(request).close()


def log(**wanted):
    """The requests since the last reset that have these fields."""
    with urllib.request.urlopen(f"{ENDPOINT}/_log") as answer:
        requests = json.load(answer)["requests"]
    return [r for r in requests if all(r[name] == value for name, value in wanted.items())]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def equal(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: expected {wanted!r}, found {found!r}")


def refused(error, call):
    try:
        call()
    except error as refusal:
        # To the client, a gated repository is also one that is not found.
        gated = isinstance(refusal, GatedRepoError)
        equal(gated, error is GatedRepoError, f"{refusal!r} for a gated repository")
    else:
        sys.exit(f"{error.__name__} was expected")


def snapshots():
    control(reset=True)
    folder = Path(snapshot_download(ID))
    equal(folder.name, COMMIT, "the commit")
    equal(hashes(folder), WANTED, "the sha256 of the files")
    equal(bool(log(origin="cdn", authorization=True)), False, "a token at the CDN")
    control(reset=True)
    equal(Path(snapshot_download(ID, revision=COMMIT)), folder, "the same commit")
    equal(sum(r["sent"] for r in log(origin="cdn")), 0, "bytes fetched again")


def resumes():
    """The connection breaks twice; each time the client goes on where it was."""
    # It writes, and so keeps, whole pieces only.
    piece, scratch = constants.DOWNLOAD_CHUNK_SIZE, Path(os.environ["HF_HOME"], "resumed")
    content = bytes(range(256)) * (5 * piece // 2 // 256)
    folder = scratch / "model"
    folder.mkdir(parents=True)
    (folder / "large.bin").write_bytes(content)
    rule = {"origin": "cdn", "method": "GET"}
    cuts = [piece + 1000, piece + 1]
    rules = [{**rule, "nth": n, "fault": {"kind": "cut", "after": a}} for n, a in enumerate(cuts, 1)]
    control(publish=[{"repo": "tests/large", "folder": str(folder)}], reset=True, rules=rules)
    path = Path(hf_hub_download("tests/large", "large.bin", cache_dir=scratch))
    equal(sha256(path), hashlib.sha256(content).hexdigest(), "the sha256 after two breaks")
    ranges = [request["range"] for request in log(**rule)]
    equal(ranges, [None, f"bytes={piece}-", f"bytes={2 * piece}-"], "the ranges asked for")


def trees():
    control(reset=True, pageSize=3)
    entries = list(HfApi().list_repo_tree(ID, recursive=True))
    pages = [r for r in log(origin="hub") if "/tree/" in r["path"]]
    equal(len(pages) > 3, True, "more than one page")
    files = {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}
    equal(set(files), set(WANTED), "the files of the tree")
    for name, entry in files.items():
        content = (FOLDER / name).read_bytes()
        equal(entry.size, len(content), f"the size of {name}")
        if entry.lfs is None:
            blob = b"blob %d\0" % len(content) + content
            equal(entry.blob_id, hashlib.sha1(blob).hexdigest(), f"git's name for {name}")
        else:
            equal(entry.lfs.sha256, WANTED[name], f"the sha256 of {name}")
            equal(entry.lfs.size, len(content), f"the size of {name} in LFS")
    equal(files[WEIGHTS].lfs is None, False, "weights in LFS")
    equal(HfApi().model_info(ID).sha, COMMIT, "the commit of the model")


def refusals():
    api, scratch = HfApi(), Path(os.environ["HF_HOME"], "gated")
    control(reset=True, gate={ID: TOKEN})

    def get(file="model_index.json", **options):
        return Path(hf_hub_download(ID, file, cache_dir=scratch, **options))

    refused(GatedRepoError, lambda: get(token=False))
    refused(GatedRepoError, lambda: get(token="hf_wrong"))
    equal(sha256(get(token=TOKEN)), WANTED["model_index.json"], "a gated file")
    equal(sha256(get(WEIGHTS, token=TOKEN)), WANTED[WEIGHTS], "a gated file in LFS")
    equal(bool(log(origin="hub", authorization=True)), True, "a token at the Hub")
    equal(bool(log(origin="cdn", authorization=True)), False, "a token at the CDN")
    control(reset=True)
    refused(RepositoryNotFoundError, lambda: api.model_info("tests/absent", token=False))
    refused(RevisionNotFoundError, lambda: api.model_info(ID, revision="absent"))
    refused(EntryNotFoundError, lambda: get("absent"))


WANTED = hashes(FOLDER)
for proof in (snapshots, resumes, trees, refusals):
    proof()
    print(f"huggingface_hub {__version__}: {proof.__name__}")
