"""`unionfs image`: the verbs, each in the module of its name or of its family."""

from __future__ import annotations

import typer

from .options import SETTINGS, StoreOption, choose_store
from .verbs import group

VERBS = {
    "ls": "image_ls:ls",
    "tag": "image_names:tag",
    "untag": "image_names:untag",
    "rm": "image_names:rm",
    "inspect": "image_inspect:inspect",
    "history": "image_history:history",
    "diff": "image_diff:diff",
    "pull": "image_transfer:pull",
    "fetch": "image_transfer:fetch",
    "push": "image_transfer:push",
    "save": "image_archive:save",
    "load": "image_archive:load",
    "import": "image_tree:import_",
    "export": "image_tree:export",
    "prune": "image_upkeep:prune",
    "verify": "image_upkeep:verify",
    "changes": "image_upkeep:changes",
}

app = typer.Typer(
    name="image",
    cls=group(VERBS),
    add_completion=False,
    help="Images in a store: list, name, pull, push, save, load and look into them. Options and output are docker's.",
    rich_markup_mode=None,
    context_settings=SETTINGS,
)


@app.callback()
def _options(context: typer.Context, store: StoreOption = None) -> None:
    choose_store(context, store)
