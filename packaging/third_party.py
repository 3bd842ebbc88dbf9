#!/usr/bin/env python3
"""Prints the licences of all crates that are linked into the program, from their own files.

    packaging/third_party.py [FEATURES] > THIRD-PARTY

Most licences ask that their text goes along with a program.
"""

import json
import pathlib
import subprocess
import sys

NAMES = ("licen", "copying", "notice", "unlicense", "copyright")


def cargo(*arguments):
    """What cargo prints, without a build."""
    return subprocess.run(("cargo", *arguments, "--locked"), check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(features):
    """Third-party packages that the program is linked with: neither what builds it nor what tests it."""
    tree = cargo("tree", "--edges=normal,no-proc-macro", "--package=polestar-coordinator", "--prefix=none",
                 "--format={p}", f"--features={features}")
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines()}
    packages = json.loads(cargo("metadata", "--format-version=1"))["packages"]
    found = [package for package in packages
             if package["source"] and (package["name"], "v" + package["version"]) in wanted]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The licence files of a package, one text each."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.lower().startswith(NAMES) and path.suffix != ".rs":
            yield path.read_text(encoding="utf-8", errors="replace").strip()


def main(features=""):
    by_text = {}
    print("Polestar's program contains these crates, under these licences:\n")
    for package in linked(features):
        name = f"{package['name']} {package['version']}"
        found = list(texts(package))
        missing = "" if found else " (the crate has no file with its text)"
        print(f"  {name}: {package['license'] or 'see below'}{missing}")
        for text in found:
            by_text.setdefault(text, []).append(name)
    for text, names in by_text.items():
        print("\n" + "=" * 80)
        print(", ".join(names))
        print("=" * 80 + "\n")
        print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
