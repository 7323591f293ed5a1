from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.report.run_tables import update_words
from asyncdmtl.report.update_report import predicted_updates

PLACEMENT = Placement.cyclic(4, 8, 2)
REQUEST = PlanRequest(PLACEMENT, tuple("abcd"), tuple(n // 2 for n in range(8)), None, None)


def test_bytes_are_loads_times_vectors_times_rounds() -> None:
    plan = make_plan(PLACEMENT, "relay", tasks=REQUEST.tasks)
    made = predicted_updates(REQUEST, plan, 27, "squared")
    assert list(made) == ["statistics", "newton", "quasi-newton", "gradient"]
    gradient = made["gradient"]
    assert gradient["vector_bytes"] == 8 * 28
    assert gradient["down_bytes"] == gradient["rounds"] * int(plan.wire_downlink_load * 8 * 28)
    assert gradient["up_bytes"] > gradient["rounds"] * int(plan.uplink_load * 8 * 28)
    assert made["statistics"]["rounds"] == 1
    assert made["statistics"]["vector_bytes"] == 8 * 435


def test_what_a_loss_cannot_have_says_why() -> None:
    plan = make_plan(PLACEMENT, "relay", tasks=REQUEST.tasks)
    made = predicted_updates(REQUEST, plan, 27, "logistic")
    assert made["statistics"]["reason"] == "loss must be squared"
    assert made["newton"]["reason"] == ""
    assert [name for name, each in made.items() if each["chosen"]] == ["newton"]


def test_words_name_the_choice_and_the_others() -> None:
    updates = {
        "statistics": {"rounds": 1, "bytes": 3480, "cost": 3520, "reason": ""},
        "newton": {"rounds": 9, "bytes": 3480, "cost": 31680, "reason": "no"},
        "gradient": {"rounds": 400, "bytes": 224, "cost": 105600, "reason": ""},
    }
    words = update_words(updates, "statistics")
    told = "Update: statistics, predicted 1 × 3.48 kB from each partition; gradient 400 × 224 B."
    assert words == f"{told} A round counts as 1 MB more."
    assert update_words(updates, "model") == "Update: model."
