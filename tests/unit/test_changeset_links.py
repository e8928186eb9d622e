"""Hard-link groups: what must be written so that applying a layer gives the union's groups."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unionfs.changeset.links import Member, Verdict, resolve


def verdicts(*members: Member) -> list[Verdict]:
    return list(resolve(members))


def test_new_name_of_an_untouched_file_links_to_it() -> None:
    old = Member(b"a", 7, 1, 2, False)
    assert verdicts(old, Member(b"b", None, 0, 2, True)) == [Verdict(b"b", False, b"a")]


def test_rewritten_group_needs_no_verdict() -> None:
    assert verdicts(Member(b"a", 7, 2, 2, True), Member(b"b", 7, 2, 2, True)) == []


def test_untouched_name_whose_siblings_went_is_written() -> None:
    assert verdicts(Member(b"a", 7, 2, 1, False)) == [Verdict(b"a", True, None)]


def test_two_files_made_one_link_the_second() -> None:
    assert verdicts(Member(b"a", 7, 1, 2, False), Member(b"b", 8, 1, 2, False)) == [Verdict(b"b", True, b"a")]


def test_files_linked_from_outside_the_layer_are_left_alone() -> None:
    assert verdicts(Member(b"a", 7, 5, 5, False)) == []


def simulate(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """The inodes that applying gives; all contents and attributes are equal, so nothing is written but by verdict.
    Names standing in the lowers only under their old inode keep it; fresh inodes are counted from 1000."""
    nlink_before = {ino: list(before.values()).count(ino) for ino in before.values()}
    nlink_after = {ino: list(after.values()).count(ino) for ino in after.values()}
    result = {name: before[name] for name in after if name in before}
    for ino in sorted(set(after.values())):
        names = sorted(name for name in after if after[name] == ino)
        if nlink_after[ino] == 1 and nlink_before.get(before.get(names[0], -1), 0) <= 1 and names[0] in before:
            continue  # never hard-linked: not asked about
        members = [
            Member(name.encode(), before.get(name), nlink_before.get(before.get(name, -1), 0), nlink_after[ino],
                   name not in before)
            for name in names
        ]  # fmt: skip
        asked = {v.path.decode(): v for v in resolve(members)}
        written = [n for n in names if n not in before or (n in asked and asked[n].write)]
        fresh = 1000 + ino
        for name in written:
            anchor = asked[name].link_to if name in asked else None
            result[name] = result[anchor.decode()] if anchor else fresh
    return result


def groups(inodes: dict[str, int]) -> set[frozenset[str]]:
    return {frozenset(n for n in inodes if inodes[n] == ino) for ino in inodes.values()}


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4), max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4), max_size=6),
)
def test_any_regrouping_is_reproduced(before: dict[str, int], after: dict[str, int]) -> None:
    assert groups(simulate(before, after)) == groups(after)
