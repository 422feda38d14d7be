"""The state that all workspaces of a project share: results per photo, caches, drawn pictures, checkpoints.

Everything in it is named by its content and by the version of what computed it, so that the run of one week finds what
the run of another has computed, and two runs at once can use the same entries.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.versions.dvc import home_of
from pipelines.versions.places import SHARED, note_outside, noted

VARIABLE = "DYNAMICID_STATE"
# The state of a checkout, unless DYNAMICID_STATE names another folder, and the folders in it that workspaces share.
STATE = ".dynamicid"
PREPROCESS, CURATE, CACHE, EVALUATION, RESUME = "preprocess", "curate", "cache", "evaluation", "resume"
DRIFT, COMPARE = "drift", "compare"
# In each but the last: held together by the stages that work there, alone by whoever removes something.
LOCK = ".lock"


def shared_state(root: Path) -> Path:
    """Return the folder of the state of the checkout or workspace `root`: `.dynamicid` of its checkout.

    DYNAMICID_STATE names another folder, a relative one in the checkout. It is noted there, so that `forget` knows it.
    Raises UserError for the address of an object store, in which nobody can hold a lock, map a file or link one.
    """
    home = home_of(root) or root
    named = os.environ.get(VARIABLE) or STATE
    if "://" in named:
        raise UserError(
            f"{VARIABLE}={named}: expected a folder, which may be on a disk that machines share; data and models go to "
            "an object store as a DVC remote"
        )
    state = home / named
    note_outside(home, state, STATE, SHARED)
    return state


def states_of(root: Path) -> list[Path]:
    """Return every folder in which the checkout `root` has state: its own, and those that DYNAMICID_STATE ever named.

    Of a workspace, only its own folder: what an earlier release, which shared nothing, wrote there.
    """
    return [root / STATE, *noted(root, SHARED)]
