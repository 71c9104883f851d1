"""The kernel's table of mounts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamaforge.spec.mounts import Mount, fstab, holding, is_remote, read


@given(st.text(st.characters(codec="ascii", exclude_characters="\0\n/"), min_size=1))
def test_names_of_mounts_are_read_as_the_kernel_writes_them(name: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\\#\r\v\f" or ord(c) < 32 else c for c in name)
    text = f"36 35 0:40 / /mnt/{escaped} rw - nfs srv:/x rw"
    (found,) = read(text)
    assert found == Mount(f"/mnt/{name}", "nfs", "srv:/x")


def test_a_path_is_on_the_deepest_mount_and_on_the_last_of_those_at_one_place() -> None:
    root, one, other = Mount("/", "ext4", "a"), Mount("/mnt", "nfs", "b"), Mount("/mnt", "xfs", "c")
    assert holding("/mnt/x", [root, one, other]) == other
    assert holding("/mntx", [root, one]) == root
    assert holding("the clock", [root, one]) is None


def test_half_a_line_is_no_mount() -> None:
    assert read("36 35 0:40 / /mnt rw\n\n36 35 - nfs a\n") == []


def test_network_mounts_are_told_by_their_type_and_found_in_fstab() -> None:
    kinds = ("nfs4", "fuse.sshfs", "ext4", "fusectl")
    assert [kind for kind in kinds if is_remote(kind)] == ["nfs4", "fuse.sshfs"]
    rows = (
        r"nas:/a\040b /mnt/a nfs _netdev 0 0",
        "# nas:/x /y nfs defaults",
        "nas:/b /mnt/b nfs noauto 0 0",
        "/dev/sda / ext4 rw 0 1",
    )
    assert fstab("\n".join(rows)) == [Mount("/mnt/a", "nfs", "nas:/a b")]
