"""Users, their keys, the operator's API, models, counts and health."""

from __future__ import annotations

from kimi_gateway.edge.home.schemas.notation import (
    ANY,
    FLAG,
    MOMENT,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Schema,
    array,
    mapping,
    maybe,
    one,
    page,
    record,
    ref,
)

_LIMIT = maybe(WHOLE)
_LIMITS = record({}, rpm=_LIMIT, rph=_LIMIT, rpd=_LIMIT)
_BUDGETS: Schema = {
    **mapping(maybe(NUMBER)),
    "description": "limits by unit and period, such as usd/day, tokens/month or usd/total",
}
_MODELS = maybe(array(TEXT))
_RIGHTS: dict[str, Schema] = {"search": FLAG, "files": FLAG}
_TERMS: dict[str, Schema] = {
    "name": TEXT,
    "budgets": maybe(_BUDGETS),
    "models": _MODELS,
    "in_flight": _LIMIT,
    "tokens": _LIMIT,
    "expires": maybe(TEXT),
    **_RIGHTS,
}
_OPERATORS: dict[str, Schema] = {
    **_TERMS,
    "rpm": _LIMIT,
    "rph": _LIMIT,
    "rpd": _LIMIT,
    "note": TEXT,
    "manages": FLAG,
    "see_balance": FLAG,
    "suspended": FLAG,
    "limits": maybe(_LIMITS),
}
_CREDITS: Schema = {"description": "a number, or unlimited", "anyOf": [WHOLE, TEXT, {"type": "null"}]}

SCHEMAS: dict[str, Schema] = {
    "OwnKey": record(
        {
            "id": TEXT,
            "object": one("key"),
            "name": TEXT,
            "limits": record({"rpm": _LIMIT, "rph": _LIMIT, "rpd": _LIMIT}),
            "in_flight": _LIMIT,
            "tokens": _LIMIT,
            "budgets": mapping(NUMBER),
            "models": array(TEXT),
            "search": FLAG,
            "files": FLAG,
            "manages": FLAG,
            "made_by": maybe(TEXT),
            "expires": maybe(MOMENT),
            "suspended": FLAG,
            "created": MOMENT,
        },
        key={"type": "string", "description": "the secret, in the answer that makes it only"},
    ),
    "OwnKeys": record({"object": one("list"), "data": array(ref("OwnKey")), "invite_code": TEXT}),
    "OwnKeyRequest": record({}, **_TERMS, limits=maybe(_LIMITS)),
    "OwnKeyDeleted": record({"id": TEXT, "object": one("key"), "deleted": FLAG}),
    "RegisterRequest": record({}, name=TEXT, invite_code=TEXT),
    "Registered": record(
        {
            "object": one("account"),
            "account": TEXT,
            "key": TEXT,
            "id": TEXT,
            "name": TEXT,
            "credits": WHOLE,
            "invite_code": TEXT,
        }
    ),
    "PaymentRequest": record(
        {"id": TEXT, "type": one("payment", "refund"), "account": TEXT},
        package=TEXT,
        credits=WHOLE,
        months=WHOLE,
        payment=TEXT,
    ),
    "Payment": record(
        {
            "object": one("payment", "refund"),
            "id": TEXT,
            "account": TEXT,
            "credits": WHOLE,
            "credits_remaining": WHOLE,
        },
        booked=FLAG,
        payment=TEXT,
    ),
    "AccountRequest": record({}, name=TEXT, credits=_CREDITS),
    "AccountChange": record({}, name=TEXT, budgets=maybe(_BUDGETS)),
    "AccountDeleted": record({"id": TEXT, "deleted": FLAG}),
    "GrantRequest": record({}, credits=WHOLE, expires=maybe(TEXT), package=TEXT),
    "DeductRequest": record({"credits": WHOLE}),
    "KeyRequest": record({}, **_OPERATORS, account=TEXT, credits=_CREDITS),
    "KeyChange": record({}, **_OPERATORS),
    "RotateRequest": record({}, overlap=TEXT),
    "Empty": OBJECT,
    "Problems": record(
        {
            "object": one("list"),
            "data": array(
                record({"name": TEXT, "status": one("FAIL", "warn"), "detail": TEXT, "fix": maybe(TEXT)})
            ),
        }
    ),
    "Packages": record(
        {
            "object": one("list"),
            "data": array(record({"name": TEXT, "credits": WHOLE, "months": maybe(WHOLE)})),
        }
    ),
    "Pool": record(
        {
            "object": one("list"),
            "data": array(
                record(
                    {
                        "provider": TEXT,
                        "last_balance": maybe(OBJECT),
                        "tokens": array(
                            record(
                                {
                                    "id": TEXT,
                                    "state": one("in", "out"),
                                    "in_flight": WHOLE,
                                    "balance": maybe(OBJECT),
                                    "outages": array(
                                        record({"cause": TEXT, "model": maybe(TEXT), "next_try": MOMENT})
                                    ),
                                }
                            )
                        ),
                    }
                )
            ),
        }
    ),
    "Requests": page(
        {"type": "object", "description": "the facts of a log line", "additionalProperties": True}
    ),
    "CountRequest": record({"model": TEXT, "messages": array(OBJECT)}),
    "Count": record({"data": record({"total_tokens": WHOLE})}),
    "Models": record(
        {"object": one("list"), "data": array(ref("Model")), "has_more": FLAG}, first_id=TEXT, last_id=TEXT
    ),
    "Balance": record({"code": WHOLE, "data": mapping(NUMBER), "scode": TEXT, "status": FLAG}),
    "TokenRequest": record({"token": TEXT}),
    "TokenLive": record({"live": FLAG}),
    "Health": record({"status": one("ok", "degraded", "unready"), "problems": array(TEXT)}, provider=TEXT),
    "Error": record(
        {"error": record({"message": TEXT, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT)})}
    ),
    "AnthropicError": record(
        {"type": one("error"), "error": record({"type": TEXT, "message": TEXT}, details=ANY)}, request_id=TEXT
    ),
}
