"""OpenTelemetry's environment variables, and trace context, as their specifications say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway import settings
from kimi_gateway.observe.otlp import context, options
from kimi_gateway.observe.otlp.options import Options, Target

BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
UNSET = Options()


def read(**more: str) -> Options:
    return options.read(BASE | more)


def of_traces(**more: str) -> Target:
    found = read(**more).traces
    assert found is not None
    return found


def test_the_defaults_are_those_of_the_specification() -> None:
    found = read()
    assert found.traces == Target("http://collector:4318/v1/traces")
    assert found.metrics == Target("http://collector:4318/v1/metrics")
    assert (found.ratio, found.by_parent, found.propagates) == (1.0, True, True)
    assert (found.interval, found.delay, found.queue, found.batch) == (60, 5, 2_048, 512)
    assert found.resource == {"service.name": "kimi-gateway"}
    assert found.warnings == ()


def test_a_signal_may_have_an_address_and_options_of_its_own() -> None:
    own = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces.example/as/it/is",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=1,b=two%20words",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "c=3",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "1500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    found = read(**own)
    assert found.traces == Target("https://traces.example/as/it/is", {"c": "3"}, 2.5, True)
    assert found.metrics == Target(
        "http://collector:4318/v1/metrics", {"a": "1", "b": "two words"}, 1.5, True
    )
    alone = options.read({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1"})
    assert (alone.traces, alone.metrics) == (None, Target("http://m:1/"))
    assert read(OTEL_TRACES_EXPORTER="none").traces is None


@pytest.mark.parametrize(
    ("sampler", "argument", "by_parent", "ratio"),
    [
        ("always_on", "", False, 1.0),
        ("always_off", "", False, 0.0),
        ("traceidratio", "0.25", False, 0.25),
        ("parentbased_always_off", "", True, 0.0),
        ("parentbased_traceidratio", "0.5", True, 0.5),
        ("parentbased_traceidratio", "", True, 1.0),
        ("", "0.5", True, 1.0),
    ],
)
def test_samplers(sampler: str, argument: str, by_parent: bool, ratio: float) -> None:
    found = read(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=argument)
    assert (found.by_parent, found.ratio, found.warnings) == (by_parent, ratio, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1e3"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,obviously-a-fake-secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=obviously-a-fake-secret%0d%0ab: c"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://obviously-a-fake-secret"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://host:obviously-a-fake-secret"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[obviously-a-fake-secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=obviously-a-fake-secret%ff"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
    ],
)
def test_a_wrong_value_counts_as_unset_and_its_warning_has_no_secret(name: str, value: str) -> None:
    found = read(**{name: value})
    (warning,) = found.warnings
    assert warning.startswith(name)
    assert "secret" not in warning
    expected = read()
    assert (found.traces, found.metrics, found.resource) == (
        expected.traces, expected.metrics, expected.resource
    )  # fmt: skip
    assert (found.ratio, found.queue, found.delay, found.interval) == (1.0, 2_048, 5, 60)


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, BASE | {"OTEL_SDK_DISABLED": "True"}]
)
def test_it_is_off_without_an_endpoint_and_when_it_is_disabled(environ: dict[str, str]) -> None:
    assert options.read(environ) == UNSET
    found = settings.read({"HOME": "/", "OTEL_SERVICE_NAME": "x", **environ})
    assert (found.otlp, found.telemetry) == ({}, False)


def test_the_batch_fits_into_the_queue() -> None:
    assert read(OTEL_BSP_MAX_QUEUE_SIZE="10").batch == 10


@given(st.text(max_size=80))
def test_any_text_is_a_traceparent_or_none(text: str) -> None:
    found = context.parsed([text])
    assert found is None or len(found[0]) == 32


def test_a_later_version_may_have_more_fields_and_a_second_header_makes_both_wrong() -> None:
    assert context.parsed([f"01-{TRACE}-{SPAN}-03-more"]) == (TRACE, SPAN, 3)
    assert context.parsed([f"00-{TRACE}-{SPAN}-01"] * 2) is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["a=1", "b=2, ,c@d=3"], "a=1,b=2,c@d=3"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a=1,b"], ""),
        (["a=\u00e9"], ""),
        ([",".join(f"k{number}=v" for number in range(33))], ""),
        (["a=" + "x" * 5_000], ""),
        ([], ""),
    ],
)
def test_tracestate_is_passed_on_if_all_of_it_is_right(given: list[str], kept: str) -> None:
    assert context.state_of(given) == kept


@pytest.mark.parametrize(("ratio", "number"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_a_ratio_samples_by_the_id_so_that_all_services_agree(ratio: float, number: int) -> None:
    found = Options(ratio=ratio, by_parent=False)
    ids = [f"{'f' * 16}{int((each + 0.5) / 10 * 2**64):016x}" for each in range(10)]
    begun = [context.begin(found, [f"00-{id}-{SPAN}-00"], []) for id in ids]
    assert sum(trace.sampled for trace in begun) == number
    assert [trace.outgoing()["traceparent"][-2:] for trace in begun].count("01") == number
