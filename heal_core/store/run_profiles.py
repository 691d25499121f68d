"""Which profile of a rollout a run goes by: runs share rollouts, and may cut and search them differently.

What does not belong here: making profiles (`heal_core.profiles`), and what is read of them (`report`, `inspector`).
"""

from __future__ import annotations

import json

from heal_core.profiles import profile_key
from heal_core.store.reading import Readable

_SEVERAL = """
SELECT r.row_id, coalesce(any_value(d.decision) = 'rescored', false) AS is_rescored
FROM run_rows r JOIN profiles p ON p.trajectory_id = r.row_id
LEFT JOIN decisions d ON d.run_id = r.run_id AND d.subject_id = r.row_id AND d.phase = 'breakpoint'
WHERE r.run_id = $run AND r.phase = 'rollouts' GROUP BY r.row_id HAVING count(DISTINCT p.profile_id) > 1
"""

# the same steps and the same window, so that it was made under the same settings
_RESCORED = """
SELECT o.profile_id, max(r.profile_id) AS rescored_id
FROM profiles o JOIN profiles r ON r.trajectory_id = o.trajectory_id AND r.entropy_source = 'rescored'
    AND r.step_start_tokens = o.step_start_tokens AND r.window_size IS NOT DISTINCT FROM o.window_size
WHERE o.profile_id IN (SELECT unnest($keys)) GROUP BY o.profile_id
"""


def find_used_profiles(store: Readable, run_id: str) -> list[str]:
    """Return the ids of the profiles that a run goes by, of those of its rollouts that have several.

    That is the one under the run's own settings, and where the run read the rollout again, what came of that.
    """
    several = store.rows(_SEVERAL, {"run": run_id})
    if not several:
        return []
    (run,) = store.rows("SELECT config::VARCHAR AS config FROM runs WHERE run_id = $run", {"run": run_id})
    config = json.loads(run["config"])
    key_of = {
        row["row_id"]: profile_key(row["row_id"], config.get("steps", {}), config.get("breakpoints", {}))
        for row in several
    }
    reread = [key_of[row["row_id"]] for row in several if row["is_rescored"]]
    rescored = {}
    if reread:
        rescored = {row["profile_id"]: row["rescored_id"] for row in store.rows(_RESCORED, {"keys": reread})}
    return sorted(rescored.get(key, key) for key in key_of.values())
