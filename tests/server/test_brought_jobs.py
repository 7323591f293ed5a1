from __future__ import annotations

from typing import Any

import pytest
from support.problems import make_settings, run_options

from asyncdmtl.errors import UsageError
from asyncdmtl.server.brought_jobs import brought_job, is_brought

OPTIONS = run_options(settings=make_settings(), workers=7, silence_timeout=3.0)
SETTINGS = make_settings(rounds=9).as_dict()
TABLE = {"name": "a", "settings": SETTINGS, "strategy": "central", "workers": 3}


def test_a_job_has_its_own_settings_and_workers_and_the_rest_from_the_server() -> None:
    job = brought_job(TABLE, OPTIONS)
    assert is_brought(TABLE)
    assert not is_brought({"name": "a", "rounds": 3})
    assert job.brought
    assert (job.name, job.options.strategy, job.options.workers) == ("a", "central", 3)
    assert job.options.settings == make_settings(rounds=9)
    assert job.options.silence_timeout == 3.0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"report": "x"}, "must be exactly name, settings, strategy, workers"),
        ({"settings": 3}, "must have a table of settings and a strategy"),
        ({"strategy": ["relay"]}, "must have a table of settings and a strategy"),
        ({"strategy": "best"}, "job 'a': --strategy must be one of"),
        ({"settings": {}}, "job 'a': settings must be exactly"),
        ({"settings": SETTINGS | {"rounds": -1}}, "job 'a': rounds must be"),
        ({"workers": 0}, "job 'a': workers must be a number from 1"),
        ({"workers": True}, "job 'a': workers must be a number from 1"),
        ({"workers": 10**9}, "job 'a': workers must be a number from 1"),
        ({"name": "../a"}, "name of a job must be"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_under_the_name_of_the_job(
    change: dict[str, Any], rule: str
) -> None:
    with pytest.raises(UsageError, match=rule):
        brought_job(TABLE | change, OPTIONS)
