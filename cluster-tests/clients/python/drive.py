"""Drives MCP sessions with the Python SDK v1, each HTTP request of a session to the next URL.

Run by `cluster-tests/src/real/clients.rs`; `drive.mjs` beside it takes the same arguments and prints the same
line. Anything that a user of the SDK would notice is an error: a refused request, a wrong answer, a
notification that never came.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import sys
import threading
from datetime import timedelta

import httpx
import mcp.types as types
from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

# Longer than the 10 s that a gateway may hold a request while ownership settles.
REQUEST_S = 30
# server-everything repeats its log line every 5 s, so that one lost before the stream stood comes twice more.
NOTIFICATION_S = 12
PROGRESS_STEPS = 5
# Ringway's code for a call that was lost with its owner.
CODE_LOST = -31001
ERRORS_SHOWN = 10


class Report:
    """What all sessions together saw."""

    def __init__(self, label):
        self.label = label
        self.sessions = self.calls = self.error_count = self.wrong = self.lost = 0
        self.errors = []
        self.nodes, self.hops, self.statuses, self.checks = {}, {}, {}, {}

    def fail(self, text):
        self.error_count += 1
        self.note(text)

    def note(self, text):
        if len(self.errors) < ERRORS_SHOWN:
            self.errors.append(text)

    def line(self):
        return json.dumps({
            "client": "python-v1",
            "label": self.label,
            "sessions": self.sessions,
            "calls": self.calls,
            "errors": self.errors,
            "errorCount": self.error_count,
            "wrong": self.wrong,
            "lost": self.lost,
            "nodes": self.nodes,
            "hops": self.hops,
            "statuses": self.statuses,
            "checks": self.checks,
        })


def tally(counts, name):
    if name is not None:
        counts[name] = counts.get(name, 0) + 1


class NextUrl(httpx.AsyncBaseTransport):
    """The balancer: sends every request to the next URL and lets no cookie through in either direction."""

    def __init__(self, session):
        self.session = session
        self.inner = httpx.AsyncHTTPTransport()
        # Sessions start at different URLs, so that `initialize` meets every node too.
        self.turn = session.index

    async def handle_async_request(self, request):
        urls, report = self.session.args.urls, self.session.report
        target = urls[self.turn % len(urls)]
        # An old client's messages go to another path than its stream comes from.
        request.url = target.copy_with(raw_path=request.url.raw_path) if self.session.args.is_old else target
        self.turn += 1
        request.headers["host"] = request.url.netloc.decode()
        request.headers.pop("cookie", None)
        if self.session.args.token_file:
            with open(self.session.args.token_file) as file:
                request.headers["authorization"] = f"Bearer {file.read().strip()}"
        response = await self.inner.handle_async_request(request)
        response.headers.pop("set-cookie", None)
        tally(report.nodes, response.headers.get("ringway-node"))
        tally(report.hops, response.headers.get("ringway-hops"))
        tally(report.statuses, f"{request.method} {response.status_code}")
        self.session.answered(request.method, response.status_code)
        return response

    async def aclose(self):
        await self.inner.aclose()


class Session:
    def __init__(self, index, args, report):
        self.index, self.args, self.report = index, args, report
        self.name = f"{args.label}/{index}"
        self.closing = False
        self.listening, self.logged = asyncio.Event(), asyncio.Event()

    def root(self):
        return f"file:///roots/{self.name}"

    def failed(self, error):
        # An exception group says nothing by itself; what broke are its leaves.
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                self.failed(inner)
            return
        if isinstance(error, McpError) and error.error.code == CODE_LOST:
            self.report.lost += 1
        self.report.fail(f"{self.name}: {type(error).__name__}: {error}")

    def answered(self, method, status):
        """The SDK keeps quiet about a GET or DELETE that was refused, and about a notification answered 404."""
        if method == "GET" and status == 200:
            self.listening.set()
        # A stream that ends with its session is asked for again, and that is refused: not an error any more.
        refused = status >= 400 and not (method == "GET" and (status == 405 or self.closing))
        if refused:
            self.report.fail(f"{self.name}: {method} answered {status}")

    async def run(self):
        async with contextlib.AsyncExitStack() as stack:
            read, write = await (self.old_streams(stack) if self.args.is_old else self.streams(stack))
            self.client = await stack.enter_async_context(ClientSession(
                read, write,
                read_timeout_seconds=timedelta(seconds=REQUEST_S),
                sampling_callback=self.on_sampling,
                list_roots_callback=self.on_roots,
                logging_callback=self.on_log,
            ))
            await self.client.initialize()
            await self.calls()
            if self.args.tool == "echo" and not self.args.brief:
                await self.everything_else()
            self.closing = True

    async def streams(self, stack):
        timeout = httpx.Timeout(REQUEST_S, read=300)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=NextUrl(self), timeout=timeout))
        # Leaving it sends the DELETE.
        read, write, _ = await stack.enter_async_context(
            streamable_http_client(str(self.args.urls[0]), http_client=client))
        return read, write

    async def old_streams(self, stack):
        def client(headers=None, timeout=None, auth=None):
            return httpx.AsyncClient(transport=NextUrl(self), headers=headers, timeout=timeout, auth=auth)

        return await stack.enter_async_context(
            sse_client(str(self.args.urls[0]), httpx_client_factory=client))

    async def on_sampling(self, _context, params):
        content = types.TextContent(type="text", text=f"sampled {params.messages[0].content.text}")
        return types.CreateMessageResult(role="assistant", model="drive", content=content)

    async def on_roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=self.root())])

    async def on_log(self, _params):
        self.logged.set()

    async def calls(self):
        for call in itertools.count(1):
            # At least one: the SDK may end a session before it has sent what completes its handshake.
            ended = call > 1 and self.args.stdin_ended.is_set()
            if ended if self.args.until_eof else call > self.args.calls:
                break
            try:
                await (self.count(call) if self.args.tool == "count" else self.echo(call))
                self.report.calls += 1
            except Exception as error:
                self.failed(error)
            if self.args.pace_ms > 0:
                await asyncio.sleep(self.args.pace_ms / 1000)

    async def count(self, call):
        said = await self.tool("count", {})
        numbers = re.findall(r"-?\d+", said)
        self.expect(len(numbers) == 1 and int(numbers[0]) == call, f"count: {call} expected, got {said}")

    async def echo(self, call):
        if call % 4 == 0:
            said = await self.tool("get-sum", {"a": call, "b": 1000})
            self.expect(f" is {call + 1000}." in said, f"get-sum: {call} + 1000 gave {said}")
        else:
            message = f"{self.name}/{call}/{random.random()}"
            said = await self.tool("echo", {"message": message})
            self.expect(said == f"Echo: {message}", f"echo: {message} came back as {said}")

    async def tool(self, name, given, **options):
        result = await self.client.call_tool(name, given, **options)
        said = "".join(getattr(part, "text", "") for part in result.content)
        if result.isError:
            raise RuntimeError(f"{name}: {said}")
        return said

    def expect(self, right, otherwise):
        if not right:
            self.report.wrong += 1
            self.report.note(f"{self.name}: {otherwise}")

    async def everything_else(self):
        """What a session has beyond calls: each of these takes another way through a gateway."""
        for name in ("ping", "tools", "resource", "progress", "sampling", "listening", "roots", "logging"):
            try:
                await getattr(self, f"check_{name}")()
                tally(self.report.checks, name)
            except Exception as error:
                self.failed(error)

    async def check_ping(self):
        await self.client.send_ping()

    async def check_tools(self):
        tools = (await self.client.list_tools()).tools
        self.expect(any(tool.name == "echo" for tool in tools), "tools/list has no echo")

    async def check_resource(self):
        uri = "demo://resource/dynamic/text/7"
        contents = (await self.client.read_resource(uri)).contents
        self.expect(str(contents[0].uri) == uri and "7" in contents[0].text, f"wrong resource: {contents}")

    async def check_progress(self):
        """Notifications on the stream of a POST."""
        seen = []

        async def on_progress(progress, _total, _message):
            seen.append(int(progress))

        steps = {"duration": 0.5, "steps": PROGRESS_STEPS}
        await self.tool("trigger-long-running-operation", steps, progress_callback=on_progress)
        self.expect(seen == list(range(1, PROGRESS_STEPS + 1)), f"progress came as {seen}")

    async def check_sampling(self):
        """A request of the server on the stream of a POST; its answer is a POST of its own."""
        prompt = f"{self.name}/{random.random()}"
        said = await self.tool("trigger-sampling-request", {"prompt": prompt})
        self.expect("sampled" in said and prompt in said, f"sampling gave {said}")

    async def check_listening(self):
        await within(self.listening, "no GET stream")

    async def check_roots(self):
        """The same on the GET stream, which the SDK opens by itself after initialization."""
        said = await self.tool("get-roots-list", {})
        self.expect(self.root() in said, f"roots gave {said}")

    async def check_logging(self):
        """Notifications on the GET stream."""
        await self.tool("toggle-simulated-logging", {})
        await within(self.logged, "no log line on the GET stream")
        await self.tool("toggle-simulated-logging", {})


async def within(event, otherwise):
    try:
        await asyncio.wait_for(event.wait(), NOTIFICATION_S)
    except TimeoutError:
        raise RuntimeError(f"{otherwise} within {NOTIFICATION_S} s") from None


async def runner(args, report):
    """One of the sessions that run side by side; takes the next session until all have been run."""
    while report.sessions < args.sessions:
        session = Session(report.sessions, args, report)
        report.sessions += 1
        try:
            await session.run()
        # A group of cancellations is no `Exception`; it is how the SDK's client dies, and that is a finding.
        except (Exception, BaseExceptionGroup) as error:
            session.failed(error)


def await_eof(ended):
    sys.stdin.buffer.read()
    ended.set()


async def drive(args):
    report = Report(args.label)
    if args.until_eof:
        threading.Thread(target=await_eof, args=(args.stdin_ended,), daemon=True).start()
    await asyncio.gather(*(runner(args, report) for _ in range(args.concurrency)))
    return report


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="one or more, separated by commas")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--calls", type=int, default=10, help="per session")
    parser.add_argument("--concurrency", type=int, default=1, help="sessions side by side")
    parser.add_argument("--tool", choices=["count", "echo"], default="count")
    parser.add_argument("--transport", choices=["streamable", "sse"], default="streamable",
                        help="sse: HTTP+SSE (2024-11-05), whose streams are at the URLs")
    parser.add_argument("--label", default="run")
    parser.add_argument("--pace-ms", type=int, default=0, help="pause between the calls of a session")
    parser.add_argument("--token-file", help="what each request shows for a token, read for each anew")
    parser.add_argument("--brief", action="store_true", help="calls only")
    parser.add_argument("--until-eof", action="store_true",
                        help="call on until stdin ends, whatever --calls says; --concurrency has to equal --sessions")
    args = parser.parse_args()
    args.stdin_ended = threading.Event()
    args.is_old = args.transport == "sse"
    args.urls = [httpx.URL(url) for url in args.url.split(",")]
    return args


if __name__ == "__main__":
    outcome = asyncio.run(drive(arguments()))
    print(outcome.line(), flush=True)
    sys.exit(1 if outcome.error_count + outcome.wrong > 0 else 0)
