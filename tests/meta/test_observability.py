"""Dashboard, alerts and runbook agree with the metrics that exist, and with each other."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import ray
import yaml

from serve_app import errors
from serve_app.engine import metrics as engine_metrics
from serve_app.engine.metrics import EngineSnapshot
from serve_app.telemetry import metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dreamserve.json").read_text())
OURS = {
    f"ray_{metric.name}"
    for group in vars(metrics).values()
    if isinstance(group, tuple)
    for metric in group
    if isinstance(metric, metrics.Metric)
}
# Ray's own, made in C++: no Python source has their names. tests/serve sees them exported.
CORE = {"ray_object_store_used_memory", "ray_object_store_available_memory"}


def expressions() -> dict[str, str]:
    """Every PromQL expression by where it stands, with the dashboard's variables filled in."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
            found[f"{panel['title']} {target['refId']}"] = expr
    return found


def names(expr: str) -> set[str]:
    return set(re.findall(r"\b(?:ray|dreamserve|serve)_\w+", expr))


@pytest.fixture(scope="session")
def known() -> set[str]:
    """Our metrics and those that Ray's Python sources name."""
    folder = Path(ray.__file__).parent
    found = set()
    for part in ("serve/_private", "dashboard/modules/reporter"):
        for file in (folder / part).glob("*.py"):
            text = file.read_text().replace("{protocol_name}", "http")
            found |= {f"ray_{name}" for name in re.findall(r'"([a-z]+_[a-z0-9_]+)"', text)}
    return found | OURS | CORE


def exported_as(name: str) -> set[str]:
    """The names that a series may have been declared under: Ray adds `_total`, `_bucket`."""
    return {name, name.removesuffix("_total"), name.removesuffix("_bucket")}


@pytest.mark.parametrize("place", expressions())
def test_every_metric_exists(place, known):
    unknown = {name for name in names(expressions()[place]) if not exported_as(name) & known}
    assert unknown == set()


def test_dashboard_shows_what_engines_pool_jobs_and_errors_count():
    shown = names(json.dumps(DASHBOARD))
    groups = (
        *metrics.ENGINE,
        *metrics.POOL,
        *metrics.JOBS,
        *metrics.WEBHOOKS,
        *metrics.ERRORS,
        *metrics.PARTS,
        *metrics.DATABASE,
    )
    rates_of = {"ray_dreamserve_engine_forwards_total", "ray_dreamserve_engine_rows_total"}
    hidden = {f"ray_{metric.name}" for metric in groups} - shown
    assert hidden <= rates_of  # shown as rows per forward


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_links_to_its_section_and_is_tested(rule):
    page, anchor = rule["annotations"]["runbook"].split("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), flags=re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    fired = {t["alertname"] for case in cases for t in case["alert_rule_test"] if "exp_alerts" in t}
    assert rule["alert"] in fired


def test_alert_of_the_servers_faults_knows_all_of_them():
    """V3 and V4 answer them with HTTP 200, so nobody else does."""
    (rule,) = [rule for rule in RULES if rule["alert"] == "DreamserveServerFaults"]
    (codes,) = re.findall(r'code=~"([a-z_|]+)"', rule["expr"])
    ours = [one for one in vars(errors).values() if isinstance(one, type)]
    faults = {one.code for one in ours if getattr(one, "status", 0) >= 500}
    assert set(codes.split("|")) == faults


def test_counts_of_engines_are_added_up():
    """A count that is left out falls when a reload replaces the engine, and is then lost."""
    counts = {field.name for field in dataclasses.fields(EngineSnapshot) if field.type is int}
    assert counts == set(engine_metrics._SUMMED)


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.fixture(scope="session")
def promtool():
    """Prometheus' checker; Debian has it in the package `prometheus`."""
    if (found := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed")

    def run(*arguments):
        done = subprocess.run(  # its own message is worth more than ours
            [found, *arguments], check=False, capture_output=True, text=True, cwd=PROMETHEUS
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_promtool_accepts_rules_and_configuration_and_their_tests_pass(promtool):
    promtool("check", "rules", "alerts.yaml")
    promtool("check", "config", "prometheus.yaml")
    promtool("test", "rules", "alerts_test.yaml")


def test_promtool_accepts_every_expression_of_the_dashboard(promtool, tmp_path):
    rules = [{"record": "x", "expr": expr} for expr in expressions().values()]
    file = tmp_path / "rules.yaml"
    for number, rule in enumerate(rules):
        rule["labels"] = {"number": str(number)}
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    promtool("check", "rules", str(file))
