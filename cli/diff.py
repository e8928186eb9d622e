"""`unionfs diff`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import typer

from unionfs import api

from .options import AsJson, Exclude, Layers, OnlyPaths, Pause, PauseLimit, Upper, Work, check_target, store_directory
from .output import Trouble, as_json, error, os_error_message, text, warn_of_hold, warning

SAME, DIFFERENT, TROUBLE = 0, 1, 2


class View(NamedTuple):
    """What is asked for. `content_limit` None: no contents; `depth` None: no sums."""

    reasons: bool
    verbose: bool
    content_limit: int | None
    depth: int | None
    whole: bool
    fmt: str | None
    json: bool

    @property
    def parents(self) -> bool:
        """Directories above a change are told of, as docker does."""
        return self.fmt in ("docker", "podman")

    @property
    def inside(self) -> bool:
        return self.depth is not None

    @property
    def wants_reasons(self) -> bool:
        return self.reasons or self.content_limit is not None or self.depth is not None or self.fmt is not None


One = Annotated[
    str | None,
    typer.Argument(
        metavar="TREE",
        help="A live mount: its changes, instead of -l and -u. With another TREE: a directory, mount, layer tar, "
        "image, layer:PATH, upper:DIR or snapshot.",
        show_default=False,
    ),
]
Other = Annotated[str | None, typer.Argument(metavar="TREE", help="What TREE is compared with.", show_default=False)]
Reasons = Annotated[bool, typer.Option("--reasons", help="Say in what they differ; of two trees that is said anyway.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show what was there, and what is.")]
Content = Annotated[bool, typer.Option("--content", help="Show the lines of text files that differ: a patch.")]
ContentLimit = Annotated[
    int, typer.Option("--content-limit", metavar="BYTES", min=0, help="Show none of larger files.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="REASON,...",
        help="Of type, mode, owner, size, content, link, device, xattr, hardlink, mtime, dirmtime. Of two trees "
        "dirmtime, as docker does.",
    ),
]
Semantic = Annotated[bool, typer.Option("--semantic", help="Ignore times, as diffoci --semantic does.")]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Times of directories count too, and fractions of a second that only one has."),
]
Summary = Annotated[bool, typer.Option("--summary", help="Only how much differs, in one line.")]
Stat = Annotated[bool, typer.Option("--stat", help="Only how much differs in each directory.")]
Depth = Annotated[int, typer.Option("--depth", metavar="N", min=0, help="Of --stat: down to so many names.")]
Fmt = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="docker, podman, table, json, 'table TEMPLATE' or a template as '{{.Kind}} {{.Path}}'.",
        show_default=False,
    ),
]


def diff(
    context: typer.Context,
    one: One = None,
    other: Other = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    reasons: Reasons = False,
    verbose: Verbose = False,
    content: Content = False,
    content_limit: ContentLimit = 1 << 20,
    ignore: Ignore = None,
    semantic: Semantic = False,
    strict: Strict = False,
    paths: OnlyPaths = None,
    exclude: Exclude = None,
    summary: Summary = False,
    stat: Stat = False,
    depth: Depth = 2,
    fmt: Fmt = None,
    pause: Pause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
) -> None:
    """List what an upper changes, or in what two trees differ.

    A added, C changed, D deleted. Of two trees the exit status is 0 where they are the same, 1 where they differ, 2
    where that cannot be known.
    """
    ignored = [*(ignore or ()), *(sorted(api.SEMANTIC) if semantic else ())]
    view = View(
        reasons=reasons or verbose or content or other is not None,
        verbose=verbose,
        content_limit=content_limit if content else None,
        depth=0 if summary else depth if stat else None,
        whole=summary,
        fmt=fmt,
        json=json,
    )
    _check(view, strict, other, one, layers, upper, work)
    store = store_directory(context)
    if other is None and not (view.wants_reasons or ignored or paths or exclude):
        _plain(api.diff(
            one, layers=layers or (), upper=upper, work=work, store=store,
            pause=pause, pause_limit=pause_limit, on_hold=warn_of_hold,
        ), json)  # fmt: skip
        return
    from . import diff_formats as formats  # which the plain list has no need of

    formats.check(view)
    pausing = api.Pausing(pause, pause_limit, warn_of_hold)
    chosen = {"ignore": ignored, "paths": paths or (), "exclude": exclude or (), "store": store, "pausing": pausing}
    shape = {"parents": view.parents, "inside": view.inside, "on_failure": _failed}
    if other is None:
        changes = api.changes_with_reasons(one, layers=layers or (), upper=upper, work=work, **chosen, **shape)  # type: ignore[arg-type]  # as they are
        with changes as comparison:
            formats.show(comparison, view)
        if comparison.failures:
            raise typer.Exit(1)
        return
    assert one is not None
    with _trouble():
        trees = api.compare(one, other, exact=strict, on_warning=warning, **chosen, **shape)  # type: ignore[arg-type]  # as above
        with trees as comparison:
            different = formats.show(comparison, view)
    raise typer.Exit(TROUBLE if comparison.failures else DIFFERENT if different else SAME)


def _check(
    view: View,
    strict: bool,
    other: str | None,
    one: str | None,
    layers: list[str] | None,
    upper: str | None,
    work: str | None,
) -> None:
    if other is None:
        check_target(one, layers, upper, work)
        if strict:
            raise typer.BadParameter("--strict is for two trees; what an upper changes is compared so anyway")
    elif layers or upper or work:
        raise typer.BadParameter("give two trees, or -l and -u, not both")
    shown = [
        name
        for name, wanted in (
            ("--summary", view.whole),
            ("--stat", view.depth is not None and not view.whole),
            ("--format", view.fmt is not None),
            ("--content", view.content_limit is not None),
        )
        if wanted
    ]
    if len(shown) > 1:
        raise typer.BadParameter(f"{' and '.join(shown)} do not go together")
    if view.json and shown and shown[0] in ("--format", "--content"):
        raise typer.BadParameter(f"--json and {shown[0]} do not go together")


def _plain(changes: list[api.Change], json: bool) -> None:
    if json:
        from . import schemas

        as_json([schemas.Change.of(change) for change in changes])
        return
    for change in changes:
        text(change.text())


def _failed(failure: OSError) -> None:
    error(os_error_message(failure))


@contextmanager
def _trouble() -> Iterator[None]:
    """Failures are status 2, since 1 says that something differs."""
    try:
        yield
    except (api.UnionFSError, OSError) as e:
        raise Trouble(e, TROUBLE) from e
