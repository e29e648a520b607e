"""An MCP server on the Python SDK v1, as it comes: one reader of its own stream, 409 to a second one.

Run by `cluster-tests/src/real/upstream.rs`; `serve.mjs` beside it has the same tools and prints the same line.
"""

import asyncio
import socket

import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import LoggingMessageNotification, LoggingMessageNotificationParams, ServerNotification

server = FastMCP("strict")


@server.tool()
async def announce(n: int, ctx: Context) -> str:
    params = LoggingMessageNotificationParams(level="info", data={"announced": n})
    # Related to no request, so that it is said on the server's own stream.
    notification = LoggingMessageNotification(method="notifications/message", params=params)
    await ctx.session.send_notification(ServerNotification(notification))
    return "Announced"


@server.tool()
async def slow(ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    return f"slept {ms} ms"


listener = socket.create_server(("127.0.0.1", 0))
print(f"strict-py ready http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run(sockets=[listener])
