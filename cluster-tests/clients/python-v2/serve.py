"""An MCP server on FastMCP: over stdio, or over Streamable HTTP with `--port PORT`.

Started by `cluster-tests/src/real/upstream.rs`. What it knows of a session is a notebook, so that a session that
is lost or mixed up shows.
"""

import argparse
import asyncio

from fastmcp import Context, FastMCP

server = FastMCP("ringway-fastmcp")
notebooks = {}


@server.tool
async def note(text: str, context: Context) -> str:
    """Writes a line into the session's notebook and gives the number of its lines."""
    lines = notebooks.setdefault(context.session_id, [])
    lines.append(text)
    return str(len(lines))


@server.tool
async def notebook(context: Context) -> str:
    """Gives the session's notebook."""
    return "\n".join(notebooks.get(context.session_id, []))


@server.tool
async def climb(steps: int, context: Context) -> str:
    """Reports every step as progress."""
    for step in range(1, steps + 1):
        await context.report_progress(step, steps)
        # The TypeScript SDK forgets progress that comes in one piece with the answer.
        await asyncio.sleep(0.1)
    return f"climbed {steps} steps"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="serve HTTP there instead of stdio")
    port = parser.parse_args().port
    if port is None:
        server.run(show_banner=False)
    else:
        server.run(transport="http", host="127.0.0.1", port=port, show_banner=False)
