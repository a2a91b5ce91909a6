"""Cores within affinity and quotas of control groups, and containers, on played file systems."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import host
from shared.data import files

MOUNT = "31 23 0:28 {root} {point} rw,nosuid,relatime shared:9 - {kind} {kind} rw{options}"
V2 = MOUNT.format(root="/", point="/sys/fs/cgroup", kind="cgroup2", options=",nsdelegate")
V1 = MOUNT.format(root="/", point="/sys/fs/cgroup/cpu,cpuacct", kind="cgroup", options=",cpu,cpuacct")
SETS = MOUNT.format(root="/", point="/sys/fs/cgroup/cpuset", kind="cgroup", options=",cpuset")
UNIFIED = MOUNT.format(root="/", point="/sys/fs/cgroup/unified", kind="cgroup2", options="")
DISK = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"


def play(root: Path, cgroup: str, mounts: list[str], texts: dict[str, str]) -> Path:
    """A file system with these lines of /proc/self and these files below /sys/fs/cgroup."""
    for path, text in {
        "proc/self/cgroup": f"{cgroup}\n",
        "proc/self/mountinfo": "\n".join([DISK, *mounts, ""]),
        **{f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in texts.items()},
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def v1(group: str, quota_us: object, period_us: object = 100_000) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": str(quota_us), f"{group}/cpu.cfs_period_us": str(period_us)}


CPU = "cpu,cpuacct"
JOB = "4:cpuset:/sets\n3:cpu,cpuacct:/slurm/job\n1:name=systemd:/slurm/job"
DOCKER = "3:cpu,cpuacct:/docker/ab\n0::/docker/ab"
DOCKER_MOUNT = MOUNT.format(root="/docker/ab", point=f"/sys/fs/cgroup/{CPU}", kind="cgroup", options=",cpu,cpuacct")
ABOVE = MOUNT.format(root="/..", point="/sys/fs/cgroup", kind="cgroup2", options="")
SPACED = MOUNT.format(root=r"/a\040b", point=r"/sys/fs/cgroup/my\040groups", kind="cgroup2", options="")
TREES = {  # name -> cgroup, mounts, files, cores
    "no quota": ("0::/", [V2], {"cpu.max": "max 100000"}, math.inf),
    "the root of a machine has no file": ("0::/", [V2], {}, math.inf),
    "an empty file": ("0::/", [V2], {"cpu.max": ""}, math.inf),
    "a private namespace": ("0::/", [V2], {"cpu.max": "150000 100000"}, 1.5),
    "own group": ("0::/a/b", [V2], {"a/b/cpu.max": "200000 100000", "a/cpu.max": "max 100000"}, 2),
    "a parent": ("0::/a/b/c", [V2], {"a/b/c/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
    "the least of all": ("0::/a/b", [V2], {"a/b/cpu.max": "800000 100000", "a/cpu.max": "200000 50000"}, 4),
    "a group without the controller": ("0::/a/b", [V2], {"a/cpu.max": "100000 100000"}, 1),
    "another group": ("0::/a", [V2], {"b/cpu.max": "100000 100000", "a/cpu.max": "max 100000"}, math.inf),
    "a colon in the path": ("0::/a:b", [V2], {"a:b/cpu.max": "100000 100000"}, 1),
    "a part of a core": ("0::/", [V2], {"cpu.max": "5000 100000"}, 0.05),
    "no number": ("0::/", [V2], {"cpu.max": "many 100000"}, math.inf),
    "a period of 0": ("0::/", [V2], {"cpu.max": "100000 0"}, math.inf),
    "v1": (JOB, [SETS, V1], v1(f"{CPU}/slurm/job", 250_000), 2.5),
    "v1 without quota": (JOB, [SETS, V1], v1(f"{CPU}/slurm/job", -1), math.inf),
    "v1, a parent": (JOB, [SETS, V1], v1(f"{CPU}/slurm/job", -1) | v1(f"{CPU}/slurm", 50_000, 25_000), 2),
    "v1, half of the files": (JOB, [V1], {f"{CPU}/slurm/job/cpu.cfs_quota_us": "100000"}, math.inf),
    "v1, of sets alone": (JOB, [SETS], v1("cpuset/sets", 100_000), math.inf),
    "v1, a container with the paths of its host": (DOCKER, [DOCKER_MOUNT], v1(CPU, 300_000), 3),
    "v1, a group in such a container": (
        "3:cpu,cpuacct:/docker/ab/job",
        [DOCKER_MOUNT],
        v1(CPU, 300_000) | v1(f"{CPU}/job", 100_000),
        1,
    ),
    "both versions": (
        "3:cpu,cpuacct:/a\n0::/b",
        [V1, UNIFIED],
        v1(f"{CPU}/a", 600_000) | v1(f"{CPU}/b", 100_000) | {"unified/b/cpu.max": "500000 100000"},
        5,
    ),
    "both versions, quotas by v1": ("3:cpu,cpuacct:/a\n0::/", [V1, UNIFIED], v1(f"{CPU}/a", 600_000), 6),
    "a mount of a parent outside of the namespace": ("0::/", [ABOVE], {"cpu.max": "200000 100000"}, 2),
    "a process outside of its namespace": (
        "0::/../b",
        [V2],
        {"cpu.max": "200000 100000", "../b/cpu.max": "100000 100000"},
        2,
    ),
    "spaces": ("0::/a b/c", [SPACED], {"my groups/c/cpu.max": "200000 100000"}, 2),
    "nonsense": ("0\nx:y\n", ["", "x", "- -", "a - cgroup2"], {"cpu.max": "100000 100000"}, math.inf),
}


@pytest.mark.parametrize(("cgroup", "mounts", "texts", "cores"), TREES.values(), ids=TREES)
def test_quotas_of_control_groups(
    cgroup: str, mounts: list[str], texts: dict[str, str], cores: float, tmp_path: Path
) -> None:
    assert host.quota_cores(play(tmp_path, cgroup, mounts, texts)) == cores


def test_what_can_not_be_read_is_no_quota(tmp_path: Path) -> None:
    assert host.quota_cores(tmp_path) == math.inf
    play(tmp_path, "0::/", [V2], {})
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_bytes(f"{V2}\n".encode() + b"31 23 0:28 / /\xff rw - ext4 ext4 rw\n")
    assert host.quota_cores(tmp_path) == math.inf


@given(st.lists(st.none() | st.tuples(st.integers(1000, 10**8), st.integers(1000, 10**6)), min_size=1, max_size=5))
def test_the_least_quota_from_the_group_up_binds(
    tmp_path_factory: pytest.TempPathFactory, quotas: list[tuple[int, int] | None]
) -> None:
    groups = ["g/" * depth for depth in range(len(quotas))]
    texts = {
        f"{group}cpu.max": "max 100000" if own is None else "{} {}".format(*own)
        for group, own in zip(groups, quotas, strict=True)
    }
    root = play(tmp_path_factory.mktemp("root"), f"0::/{groups[-1].rstrip('/')}", [V2], texts)
    assert host.quota_cores(root) == min((own[0] / own[1] for own in quotas if own), default=math.inf)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max", 8), ("100000", 1), ("5000", 1), ("250000", 3), ("799999", 8), ("6400000", 8)]
)
def test_usable_cores_are_those_of_affinity_within_the_quota(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert host.usable_cores(play(tmp_path, "0::/", [V2], {"cpu.max": f"{quota} 100000"})) == cores


def test_images_are_read_by_the_other_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = []
    for cores in (1, 3, 1000):
        monkeypatch.setattr(files, "usable_cores", lambda cores=cores: cores)
        workers.append(files._other_cores())
    assert workers == [0, 2, files.MOST_WORKERS]


LAYERS = "60 50 0:52 / {point} rw,relatime - overlay overlay rw,lowerdir={folder}/1/fs:{folder}/0/fs"
IN_LAYERS = LAYERS.format(point="/", folder="/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots")
ON_A_HOST = LAYERS.format(point="/var/lib/docker/overlay2/ab/merged", folder="/var/lib/docker/overlay2/l")
LIVE = LAYERS.format(point="/", folder="/run/live/medium")


@pytest.mark.parametrize("file", host.CONTAINER_FILES)
def test_a_file_of_its_runtime_tells_a_container(file: str, tmp_path: Path) -> None:
    assert not host.in_container(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert host.in_container(tmp_path)


@pytest.mark.parametrize(
    ("cgroup", "mounts", "inside"),
    [
        ("0::/", [IN_LAYERS], True),
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab.scope", [], True),
        ("3:cpu,cpuacct:/docker/ab", [], True),
        ("0::/user.slice/user-1000.slice/session-3.scope", [ON_A_HOST], False),
        ("0::/", [LIVE], False),
    ],
)
def test_groups_and_layers_tell_a_container(cgroup: str, mounts: list[str], inside: bool, tmp_path: Path) -> None:
    assert host.in_container(play(tmp_path, cgroup, mounts, {})) == inside
