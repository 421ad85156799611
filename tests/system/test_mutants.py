"""`make mutants`: its pieces of code are still there, and it works; it has some minutes of its own for all of them."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ.get("BUILD", "build/release")

# What only an exact interleaving shows, and what the first stories show.
SOME = ["collect-takes-all-doomed-back", "collect-pins-before-marks", "collect-fates-before-intents",
        "unexpire-without-waiting", "commit-any-fate-is-ours", "dead-attempts-lose-their-packs"]


def test_every_mutant_fits_its_file():
    result = subprocess.run([ROOT / "tests/sim/mutants", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.skipif(BUILD != "build/release", reason="mutants are made of the release build's objects")
def test_some_mutants_are_noticed():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(["make", "--no-print-directory", "mutants", f"MUTANT={' '.join(SOME)}"],
                            cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(SOME)} mutants, 0 not noticed" in result.stdout, result.stdout
