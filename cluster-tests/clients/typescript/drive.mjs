// Drives MCP sessions with the TypeScript SDK v1, each HTTP request of a session to the next URL.
// Run by `cluster-tests/src/real/clients.rs`; `drive.py` beside it takes the same arguments and prints the same
// line. Anything that a user of the SDK would notice is an error: a refused request, a wrong answer, a
// notification that never came.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

const USAGE = `drive.mjs --url URL[,URL...] [--sessions 1] [--calls 10] [--concurrency 1] [--tool count|echo]
  [--transport streamable|sse] [--label NAME] [--pace-ms 0] [--brief] [--until-eof] [--token-file FILE]
  --tool count  a counter per session: each call must give exactly the next integer
  --tool echo   server-everything: echo and get-sum, and once per session everything else unless --brief
  --transport   sse: HTTP+SSE (2024-11-05), whose streams are at the URLs
  --pace-ms     pause between the calls of a session
  --token-file  what each request shows for a token, read for each anew
  --until-eof   call on until stdin ends, whatever --calls says; --concurrency has to equal --sessions`;

// Longer than the 10 s that a gateway may hold a request while ownership settles.
const REQUEST_MS = 30_000;
// server-everything repeats its log line every 5 s, so that one lost before the stream stood comes twice more.
const NOTIFICATION_MS = 12_000;
const PROGRESS_STEPS = 5;
// Ringway's code for a call that was lost with its owner.
const CODE_LOST = -31001;
const ERRORS_SHOWN = 10;
// The SDK handles a reply at once and a notification a moment later. Where both come in one piece of an old
// client's only stream, the reply to a call overtakes its last progress; with a bare server, too.
const OVERTAKEN = /progress notification for an unknown token/;

const args = readArguments();
let stdinEnded = false;
const report = {
  client: 'typescript-v1',
  label: args.label,
  sessions: 0,
  calls: 0,
  errors: [],
  errorCount: 0,
  wrong: 0,
  lost: 0,
  nodes: {},
  hops: {},
  statuses: {},
  checks: {},
};

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: 'string' },
        sessions: { type: 'string', default: '1' },
        calls: { type: 'string', default: '10' },
        concurrency: { type: 'string', default: '1' },
        tool: { type: 'string', default: 'count' },
        transport: { type: 'string', default: 'streamable' },
        label: { type: 'string', default: 'run' },
        'pace-ms': { type: 'string', default: '0' },
        'token-file': { type: 'string' },
        brief: { type: 'boolean', default: false },
        'until-eof': { type: 'boolean', default: false },
      },
    });
    if (!values.url) throw new Error('--url is needed');
    if (!['count', 'echo'].includes(values.tool)) throw new Error(`no such tool: ${values.tool}`);
    if (!['streamable', 'sse'].includes(values.transport)) throw new Error(`no such transport: ${values.transport}`);
    return {
      urls: values.url.split(',').map(url => new URL(url)),
      sessions: number(values.sessions),
      calls: number(values.calls),
      concurrency: number(values.concurrency),
      paceMs: number(values['pace-ms']),
      tool: values.tool,
      isOld: values.transport === 'sse',
      label: values.label,
      tokenFile: values['token-file'],
      brief: values.brief,
      untilEof: values['until-eof'],
    };
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

function number(text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`not a number: ${text}`);
  return value;
}

// One of the sessions that run side by side; takes the next session until all have been run.
async function runner() {
  while (report.sessions < args.sessions) {
    const index = report.sessions++;
    const session = new Session(index);
    try {
      await session.run();
    } catch (error) {
      session.failed(error);
    }
  }
}

class Session {
  constructor(index) {
    this.name = `${args.label}/${index}`;
    // Sessions start at different URLs, so that `initialize` meets every node too.
    this.nextUrl = index;
    this.closing = false;
    this.listening = deferred();
    this.logged = deferred();
    this.client = new Client(
      { name: 'ringway-drive-typescript', version: '1' },
      { capabilities: { sampling: {}, roots: {} } },
    );
    this.client.onerror = error => this.failed(error);
    this.client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: this.root() }] }));
    this.client.setRequestHandler(CreateMessageRequestSchema, request => ({
      role: 'assistant',
      model: 'drive',
      content: { type: 'text', text: `sampled ${request.params.messages[0].content.text}` },
    }));
    this.client.setNotificationHandler(LoggingMessageNotificationSchema, () => this.logged.resolve());
  }

  root() {
    return `file:///roots/${this.name}`;
  }

  failed(error) {
    // Streams that end because we end them are no failure.
    if (this.closing) return;
    if (args.isOld && OVERTAKEN.test(error?.message)) return;
    if (error?.code === CODE_LOST) report.lost++;
    fail(`${this.name}: ${error?.message ?? error}${error?.cause ? ` (${error.cause.message})` : ''}`);
  }

  async run() {
    const Transport = args.isOld ? SSEClientTransport : StreamableHTTPClientTransport;
    const transport = new Transport(args.urls[0], { fetch: this.fetch });
    await this.client.connect(transport, { timeout: REQUEST_MS });
    await this.calls();
    if (args.tool === 'echo' && !args.brief) await this.everythingElse();
    // A stream that ends with its session is asked for again, and that is refused: not an error any more.
    this.closing = true;
    // An old session ends with its stream.
    if (!args.isOld) await transport.terminateSession().catch(error => fail(`${this.name}: DELETE: ${error.message}`));
    await this.client.close();
  }

  // The balancer: every request to the next URL. Node's fetch keeps no cookies.
  fetch = async (url, init) => {
    let target = args.urls[this.nextUrl++ % args.urls.length];
    // An old client's messages go to another path than its stream comes from.
    if (args.isOld) target = new URL(new URL(url).pathname + new URL(url).search, target);
    if (args.tokenFile) {
      const headers = new Headers(init?.headers);
      headers.set('authorization', `Bearer ${readFileSync(args.tokenFile, 'utf8').trim()}`);
      init = { ...init, headers };
    }
    const response = await fetch(target, init);
    const method = init?.method ?? 'GET';
    tally(report.nodes, response.headers.get('ringway-node'));
    tally(report.hops, response.headers.get('ringway-hops'));
    tally(report.statuses, `${method} ${response.status}`);
    if (method === 'GET' && response.ok) this.listening.resolve();
    return response;
  };

  async calls() {
    for (let call = 1; args.untilEof ? call === 1 || !stdinEnded : call <= args.calls; call++) {
      try {
        if (args.tool === 'count') await this.count(call);
        else await this.echo(call);
        report.calls++;
      } catch (error) {
        this.failed(error);
      }
      if (args.paceMs > 0) await new Promise(resolve => setTimeout(resolve, args.paceMs));
    }
  }

  async count(call) {
    const said = await this.tool('count', {});
    const numbers = said.match(/-?\d+/g) ?? [];
    this.expect(numbers.length === 1 && Number(numbers[0]) === call, `count: ${call} expected, got ${said}`);
  }

  async echo(call) {
    if (call % 4 === 0) {
      const said = await this.tool('get-sum', { a: call, b: 1000 });
      this.expect(said.includes(` is ${call + 1000}.`), `get-sum: ${call} + 1000 gave ${said}`);
    } else {
      const message = `${this.name}/${call}/${Math.random()}`;
      const said = await this.tool('echo', { message });
      this.expect(said === `Echo: ${message}`, `echo: ${message} came back as ${said}`);
    }
  }

  async tool(name, given, options = {}) {
    const result = await this.client.callTool({ name, arguments: given }, undefined, { timeout: REQUEST_MS, ...options });
    const said = (result.content ?? []).map(part => part.text ?? '').join('');
    if (result.isError) throw new Error(`${name}: ${said}`);
    return said;
  }

  expect(right, otherwise) {
    if (right) return;
    report.wrong++;
    note(`${this.name}: ${otherwise}`);
  }

  // What a session has beyond calls: each of these takes another way through a gateway.
  async everythingElse() {
    await this.check('ping', () => this.client.ping({ timeout: REQUEST_MS }));
    await this.check('tools', async () => {
      const { tools } = await this.client.listTools(undefined, { timeout: REQUEST_MS });
      this.expect(tools.some(tool => tool.name === 'echo'), 'tools/list has no echo');
    });
    await this.check('resource', async () => {
      const uri = 'demo://resource/dynamic/text/7';
      const { contents } = await this.client.readResource({ uri }, { timeout: REQUEST_MS });
      this.expect(contents[0]?.uri === uri && contents[0]?.text?.includes('7'), `wrong resource: ${JSON.stringify(contents)}`);
    });
    // Notifications on the stream of a POST.
    await this.check('progress', async () => {
      const seen = [];
      await this.tool('trigger-long-running-operation', { duration: 0.5, steps: PROGRESS_STEPS },
        { onprogress: ({ progress }) => seen.push(progress) });
      const isRight = args.isOld ? '1,2,3,4,5'.startsWith(seen.join()) : seen.join() === '1,2,3,4,5';
      this.expect(isRight, `progress came as ${seen}`);
    });
    // A request of the server on the stream of a POST; its answer is a POST of its own.
    await this.check('sampling', async () => {
      const prompt = `${this.name}/${Math.random()}`;
      const said = await this.tool('trigger-sampling-request', { prompt });
      this.expect(said.includes('sampled') && said.includes(prompt), `sampling gave ${said}`);
    });
    // The same on the GET stream, which the SDK opens by itself after initialization.
    await this.check('listening', () => within(NOTIFICATION_MS, this.listening.promise, 'no GET stream'));
    await this.check('roots', async () => {
      const said = await this.tool('get-roots-list', {});
      this.expect(said.includes(this.root()), `roots gave ${said}`);
    });
    // Notifications on the GET stream.
    await this.check('logging', async () => {
      await this.tool('toggle-simulated-logging', {});
      await within(NOTIFICATION_MS, this.logged.promise, 'no log line on the GET stream');
      await this.tool('toggle-simulated-logging', {});
    });
  }

  async check(name, run) {
    try {
      await run();
      tally(report.checks, name);
    } catch (error) {
      this.failed(new Error(`${name}: ${error?.message ?? error}`));
    }
  }
}

function fail(text) {
  report.errorCount++;
  note(text);
}

function note(text) {
  if (report.errors.length < ERRORS_SHOWN) report.errors.push(text);
}

function tally(counts, name) {
  if (name != null) counts[name] = (counts[name] ?? 0) + 1;
}

function deferred() {
  let resolve;
  const promise = new Promise(done => (resolve = done));
  return { promise, resolve };
}

function within(ms, promise, otherwise) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${otherwise} within ${ms} ms`)), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

if (args.untilEof) process.stdin.resume().once('end', () => (stdinEnded = true));
await Promise.all(Array.from({ length: args.concurrency }, runner));
process.stdout.write(JSON.stringify(report) + '\n', () => process.exit(report.errorCount + report.wrong > 0 ? 1 : 0));
