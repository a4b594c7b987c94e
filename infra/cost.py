"""Computes the cost of 1,000 requests in the cloud, compared with a container: `scripts/cost`.

Prints the tables of docs/cost.md; a test compares the page with them. Prices are data, in USD, us-east-1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MONTH = 730  # hours
THOUSAND, MILLION, GB = 1e3, 1e6, 1e9


@dataclass(frozen=True, slots=True)
class Price:
    """`usd` for `per` units, as `source` said when it was `seen`."""

    usd: float
    per: float
    unit: str
    source: str
    seen: str


PRICES = {
    "api": Price(3.50, MILLION, "million REST requests (10 MB of an answer, or a part of them, count as one)",
                 "AWS whitepaper on API Gateway", "2024"),
    "invoke": Price(0.20, MILLION, "million Lambda requests", "cloudchipr.com, AWS Lambda pricing", "2024"),
    "arm": Price(0.0000133334, 1, "GB-second of Lambda, arm64", "cloudchipr.com, AWS Lambda pricing", "2024"),
    "write": Price(0.625, MILLION, "million DynamoDB write units, on demand",
                   "AWS, price change of 2024-11", "2024-11"),
    "log": Price(0.50, GB, "GB of log taken in", "cloudburn.io, CloudWatch pricing", "2026-02"),
    "out": Price(0.09, GB, "GB to the internet (100 GB a month are free)",
                 "AWS EC2 price page", "not verified"),
    "secret": Price(0.40, 1, "secret, a month", "AWS Secrets Manager price page", "not verified"),
    "alarm": Price(0.10, 1, "metric of an alarm, a month (10 are free)",
                   "signoz.io, CloudWatch pricing", "2026-02"),
    "metric": Price(0.30, 1, "metric, a month, by the hours in which it is sent (10 are free)",
                    "signoz.io, CloudWatch pricing", "2026-02"),
    "vcpu": Price(0.03238, 1, "vCPU-hour of Fargate, arm64", "vantage.sh, Fargate pricing", "2026"),
    "memory": Price(0.00356, 1, "GB-hour of Fargate, arm64", "vantage.sh, Fargate pricing", "2026"),
    "balancer": Price(0.0225, 1, "hour of a load balancer, without its capacity units",
                      "pinpole.cloud, load balancers compared", "2026"),
    "address": Price(0.005, 1, "hour of a public IPv4 address", "AWS, price change of 2024-02", "2024-02"),
}  # fmt: skip

# One streamed chat: 500 tokens in chunks of some 180 bytes; two write units and no read (docs/decisions.md);
# the gateway's line with its metrics, the platform's three, the access log's.
WRITES = 2
STREAMED_BYTES = 500 * 180
LOG_BYTES = 2_600
ITEM_UNITS = 1_000  # write units a second of one item (AWS, "Designing partition keys"; read 2026-11)
LEASE_BYTES = 16  # bytes of an account's item for each of its requests in flight
ITEM = 400  # bytes of the rest of the item: balance, counters, usage of an hour
ALARM_METRICS, METRICS = 17, 21  # infra/alarms.yaml; cloudwatch.py, some with two reasons and two causes


def usd(name: str) -> float:
    return PRICES[name].usd / PRICES[name].per


def request(seconds: float, megabytes: int) -> dict[str, float]:
    """USD of one request, by service."""
    return {
        "Lambda, time x memory": seconds * megabytes / 1024 * usd("arm"),
        "Lambda, the request": usd("invoke"),
        "API Gateway": usd("api"),
        "DynamoDB": WRITES * usd("write"),
        "Logs": LOG_BYTES * usd("log"),
        "Bytes to the client": STREAMED_BYTES * usd("out"),
    }


def standing(requests: float) -> float:
    """USD a month without the requests themselves; metrics cost money in hours that have some."""
    hours = min(1, requests / MONTH)
    metrics = max(0, METRICS - 10) * usd("metric") * hours
    return usd("secret") + max(0, ALARM_METRICS - 10) * usd("alarm") + metrics


def container() -> float:
    """USD a month of one smallest container behind a load balancer in two zones, not redundant."""
    task = 0.25 * usd("vcpu") + 0.5 * usd("memory")
    return MONTH * (task + usd("balancer") + 3 * usd("address"))


def most(seconds: int, base: int = ITEM) -> int:
    """Requests a second of one account. DynamoDB accepts 1,000 write units a second for one item. A request
    writes it twice, each write costs a unit for each KiB, and each request in flight makes the item
    larger."""
    rate = 0
    while WRITES * (rate + 1) * math.ceil((base + LEASE_BYTES * (rate + 1) * seconds) / 1024) <= ITEM_UNITS:
        rate += 1
    return rate


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def table(heading: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    return "\n".join([row(*heading), "|" + "---|" * len(heading), *(row(*each) for each in rows)])


def by_time_and_memory() -> str:
    def cost(seconds: float, megabytes: int) -> str:
        return f"{THOUSAND * sum(request(seconds, megabytes).values()):.3f}"

    sizes = (256, 512, 1024)
    return table(
        ("USD for 1,000 requests of", *(f"{size:,} MB" for size in sizes)),
        [(f"{seconds} s", *(cost(seconds, size) for size in sizes)) for seconds in (3, 10, 30, 120)],
    )


def by_part() -> str:
    parts = request(10, 512)
    total = sum(parts.values())
    rows: list[tuple[object, ...]] = [
        (name, f"{THOUSAND * part:.4f}", f"{100 * part / total:.0f} %") for name, part in parts.items()
    ]
    return table(
        ("1,000 requests of 10 s at 512 MB", "USD", "share"), [*rows, ("all", f"{THOUSAND * total:.4f}", "")]
    )


def by_month() -> str:
    each, always = sum(request(10, 512).values()), container()
    return table(
        ("Requests a month", "here, USD", "a container always on, USD"),
        [
            (f"{number:,}", f"{standing(number) + number * each:.2f}", f"{always:.2f}")
            for number in (0, 1_000, 10_000, 100_000, 300_000, 1_000_000)
        ],
    )


def by_account() -> str:
    return table(
        ("Requests of", "a second for one account", "a second at 1,000 executions", "at 10 executions"),
        [(f"{each} s", most(each), f"{1_000 / each:.0f}", f"{10 / each:.1f}") for each in (3, 10, 30, 120)],
    )


def break_even() -> int:
    """Requests a month from which the container is cheaper, if it can carry them."""
    return round((container() - standing(MONTH)) / sum(request(10, 512).values()))


def sources() -> str:
    return table(
        ("A", "USD", "Source", "Seen"),
        [
            (price.unit, f"{price.usd:.10f}".rstrip("0"), price.source, price.seen)
            for price in PRICES.values()
        ],
    )


def report() -> str:
    equal = f"Both cost the same at {break_even():,} requests a month (10 s, 512 MB)."
    return "\n\n".join([by_time_and_memory(), by_part(), by_month(), equal, by_account(), sources()]) + "\n"


if __name__ == "__main__":
    print(report(), end="")
