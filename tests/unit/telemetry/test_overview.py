"""Metrics pages of several nodes become the rows of `dreamserve top`."""

import io

from rich.console import Console

from serve_app.cli import top
from serve_app.telemetry.overview import DeploymentLoad, read

ENGINE = """
ray_dreamserve_engine_waiting{{model_id="{m}",replica="{r}"}} {waiting}
ray_dreamserve_engine_parked{{model_id="{m}",replica="{r}"}} 4
ray_dreamserve_engine_rows_per_forward{{model_id="{m}",replica="{r}"}} {rows}
ray_dreamserve_engine_steps_per_second{{model_id="{m}",replica="{r}"}} 8.5
ray_dreamserve_engine_pictures_per_second{{model_id="{m}",replica="{r}"}} 0.25
ray_dreamserve_engine_tick_seconds{{model_id="{m}",replica="{r}"}} 0.{r}
ray_dreamserve_engine_succeeded_total{{model_id="{m}",replica="{r}"}} 10
ray_dreamserve_engine_failed_total{{model_id="{m}",replica="{r}"}} 1
"""
HEAD = """
ray_node_cpu_utilization{ip="10.0.0.1"} 50
ray_node_mem_used{ip="10.0.0.1"} 4
ray_node_mem_total{ip="10.0.0.1"} 16
ray_node_disk_utilization_percentage{ip="10.0.0.1"} 30
ray_serve_application_status{application="dreamserve"} 6
ray_serve_deployment_status{deployment="Generator:a"} 6
ray_serve_autoscaling_target_replicas{deployment="Generator:a"} 3
ray_serve_deployment_replica_healthy{deployment="Generator:a",replica="1"} 1
ray_serve_deployment_replica_healthy{deployment="Generator:a",replica="2"} 1
ray_serve_replica_processing_queries{deployment="Generator:a",replica="1"} 5
ray_serve_deployment_queued_queries{deployment="Generator:a",handle="x"} 2
ray_serve_deployment_queued_queries{deployment="Generator:a",handle="y"} 1
ray_dreamserve_jobs_open{model_id="a"} 12
ray_dreamserve_jobs_open{model_id="only-queued"} 3
ray_dreamserve_jobs_oldest_seconds 42
"""
GPU_NODE = """
ray_node_cpu_utilization{ip="10.0.0.2"} 10
ray_node_mem_total{ip="10.0.0.2"} 16
ray_node_gpus_utilization{ip="10.0.0.2",GpuIndex="0"} 80
ray_node_gpus_utilization{ip="10.0.0.2",GpuIndex="1"} 40
"""
PAGES = [
    HEAD + ENGINE.format(m="a", r=1, rows=6, waiting=2),
    GPU_NODE + ENGINE.format(m="a", r=2, rows=0, waiting=1),
]


def test_model_is_summed_over_its_replicas():
    a, queued = read(PAGES).models
    assert (a.model_id, a.replicas, a.open_jobs, a.waiting, a.at_work) == ("a", 2, 12, 3, 8)
    assert (a.steps_per_s, a.pictures_per_s, a.made, a.failed) == (17.0, 0.5, 20, 2)
    assert a.rows_per_forward == 6  # the idle replica does not count
    assert a.tick_s == 0.2
    assert (queued.model_id, queued.replicas, queued.open_jobs) == ("only-queued", 0, 3)


def test_deployment_is_summed_over_replicas_and_callers():
    assert read(PAGES).deployments == (DeploymentLoad("Generator:a", 2, 3, 5, 3),)


def test_nodes_are_told_with_and_without_gpu():
    first, second = read(PAGES).nodes
    assert (first.address, first.cpu, first.memory, first.gpu) == ("10.0.0.1", 0.5, 0.25, None)
    assert (second.address, second.gpu) == ("10.0.0.2", 0.6)


def test_nothing_at_all_is_an_empty_overview():
    seen = read([])
    assert (seen.status, seen.models, seen.deployments, seen.nodes) == ("unknown", (), (), ())


def test_table_fits_a_narrow_terminal():
    console = Console(file=io.StringIO(), width=80)
    console.print(top.render(read(PAGES), silent=1))
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("dreamserve running   0.50 pictures/s   15 open jobs, oldest 42 s")
    (row,) = (line.split() for line in lines if line.startswith("a "))
    assert row == ["a", "2", "12", "3", "8", "6.0", "17.0", "0.50", "200", "20", "2"]
    assert not any("…" in line for line in lines)
