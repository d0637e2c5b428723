"""What an administrator may ask to have explained: a would-be request, and whose it would be."""

from typing import Annotated, Any

from msgspec import Meta, Struct

Path = Annotated[str, Meta(min_length=1, max_length=2000, pattern="^/[!-~]*\\Z", description='a path, such as "/v1/x"')]
Method = Annotated[str, Meta(max_length=20, pattern="^[A-Z]+\\Z", description='a method, such as "POST"')]
Body = Annotated[dict[str, Any], Meta(description="the JSON object of a would-be request")]
Text = Annotated[str, Meta(min_length=1, max_length=1000, description="text of 1 to 1,000 characters")]


class ExplainRequest(Struct, frozen=True, kw_only=True):
    """POST /admin/explain."""

    body: Body | None = None
    """None = the request has none."""
    path: Path = "/v1/chat/completions"
    """With its query, if it has one."""
    method: Method = "POST"
    key: Text | None = None
    """An API key the request would show."""
    key_id: Text | None = None
    """The id of one instead, as GET /auth/keys lists it. Neither = no key, and where keys are asked for no limits."""
