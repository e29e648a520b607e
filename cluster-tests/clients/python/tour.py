"""Takes sessions through what a server can do, with the Python SDK v1 or v2, over any transport that it has.

Run by `cluster-tests/src/real/tours.rs`, which writes the tours, with the interpreter of the set that has the wanted
SDK; `tour.mjs` in its own folder does the same with the TypeScript SDKs. Reads the tours from stdin, one JSON object
per line, and answers each with a line.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import sys
import time
from datetime import timedelta

import mcp.types as types
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

REQUEST_S = 30
# server-everything says its first log line at once, and the next 5 s later.
LOG_S = 12
# v2 names the fields of its types as Python does, and takes seconds as a number.
V2 = int(importlib.metadata.version("mcp").split(".")[0]) >= 2


def transport(tour):
    if tour["transport"] == "stdio":
        program, *arguments = tour["command"]
        # What a server says on stderr would fill this driver's log.
        return stdio_client(StdioServerParameters(command=program, args=arguments), errlog=open(os.devnull, "w"))
    if tour["transport"] == "sse":
        return sse_client(tour["url"])
    return streamable_http_client(tour["url"])


class Visit:
    def __init__(self, tour):
        self.tour = tour
        self.logged = asyncio.Event()

    async def run(self):
        async with contextlib.AsyncExitStack() as stack:
            read, write, *_ = await stack.enter_async_context(transport(self.tour))
            self.client = await stack.enter_async_context(ClientSession(
                read, write,
                read_timeout_seconds=REQUEST_S if V2 else timedelta(seconds=REQUEST_S),
                sampling_callback=self.on_sampling,
                elicitation_callback=self.on_elicitation,
                list_roots_callback=self.on_roots,
                logging_callback=self.on_log,
            ))
            await self.client.initialize()
            names = [tool.name for tool in (await self.client.list_tools()).tools]
            for step in self.tour["steps"]:
                if step["tool"] not in names:
                    raise RuntimeError(f"no tool {step['tool']} among {names}")
                await self.step(**step)

    async def on_sampling(self, _context, params):
        content = types.TextContent(type="text", text=f"sampled {params.messages[0].content.text}")
        return types.CreateMessageResult(role="assistant", model="tour", content=content)

    async def on_elicitation(self, _context, _params):
        return types.ElicitResult(action="accept", content={"name": self.tour["person"]})

    async def on_roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=self.tour["root"])])

    async def on_log(self, _params):
        self.logged.set()

    async def step(self, tool, given, expect, progress=None, log=False):
        seen = []

        async def on_progress(done, _total, _message):
            seen.append(int(done))

        options = {"progress_callback": on_progress} if progress else {}
        result = await self.client.call_tool(tool, given, **options)
        said = "\n".join(getattr(part, "text", "") for part in result.content)
        if result.is_error if V2 else result.isError:
            raise RuntimeError(f"{tool} failed: {said}")
        for part in expect:
            if part not in said:
                raise RuntimeError(f"{tool}: {part!r} is not in {said[:500]}")
        if seen != list(range(1, (progress or 0) + 1)):
            raise RuntimeError(f"{tool}: progress came as {seen}")
        if log:
            await asyncio.wait_for(self.logged.wait(), LOG_S)


def leaves(error):
    """An exception group says nothing by itself; what broke are its leaves."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(leaves(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def main():
    while line := await asyncio.to_thread(sys.stdin.readline):
        tour, began, error = json.loads(line), time.monotonic(), None
        try:
            await Visit(tour).run()
        # A group of cancellations is no `Exception`; it is how the SDK's client dies, and that is a finding.
        except (Exception, BaseExceptionGroup) as caught:
            error = leaves(caught)
        ms = round((time.monotonic() - began) * 1000)
        print(json.dumps({"name": tour["name"], "ms": ms, "error": error}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
