// Takes sessions through what a server can do, with the TypeScript SDK v1 or v2, over any transport that it has.
// Run by `cluster-tests/src/real/tours.rs`, which writes the tours; `tour.py` beside it, in its own folder, does the
// same with the Python SDKs. Reads the tours from stdin, one JSON object per line, and answers each with a line.

import { createInterface } from 'node:readline';

const REQUEST_MS = 30_000;
// server-everything says its first log line at once, and the next 5 s later.
const LOG_MS = 12_000;
// The SDK forgets whom to tell as soon as it sees an answer, and complains of a last step that comes in one piece with
// that, also without anything between client and server.
const LATE_PROGRESS = /progress notification for an unknown token/;

const sdk = process.argv[2] === 'v2' ? await v2() : await v1();

async function v1() {
  const at = '@modelcontextprotocol/sdk';
  const types = await import(`${at}/types.js`);
  return {
    name: 'typescript-v1',
    Client: (await import(`${at}/client/index.js`)).Client,
    Http: (await import(`${at}/client/streamableHttp.js`)).StreamableHTTPClientTransport,
    Sse: (await import(`${at}/client/sse.js`)).SSEClientTransport,
    Stdio: (await import(`${at}/client/stdio.js`)).StdioClientTransport,
    sampling: types.CreateMessageRequestSchema,
    elicitation: types.ElicitRequestSchema,
    roots: types.ListRootsRequestSchema,
    log: types.LoggingMessageNotificationSchema,
    call: (client, params, options) => client.callTool(params, undefined, options),
  };
}

async function v2() {
  const { Client, StreamableHTTPClientTransport, SSEClientTransport } = await import('@modelcontextprotocol/client');
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  return {
    name: 'typescript-v2',
    Client,
    Http: StreamableHTTPClientTransport,
    Sse: SSEClientTransport,
    Stdio: StdioClientTransport,
    sampling: 'sampling/createMessage',
    elicitation: 'elicitation/create',
    roots: 'roots/list',
    log: 'notifications/message',
    call: (client, params, options) => client.callTool(params, options),
  };
}

class Visit {
  constructor(tour) {
    this.tour = tour;
    this.errors = [];
    this.logged = new Promise(resolve => (this.onLog = resolve));
    const capabilities = { sampling: {}, elicitation: {}, roots: {} };
    this.client = new sdk.Client({ name: 'ringway-tour', version: '1' }, { capabilities });
    this.client.onerror = error => {
      if (!LATE_PROGRESS.test(error.message)) this.errors.push(error);
    };
    this.client.setRequestHandler(sdk.sampling, request => ({
      role: 'assistant',
      model: 'tour',
      content: { type: 'text', text: `sampled ${request.params.messages[0].content.text}` },
    }));
    this.client.setRequestHandler(sdk.elicitation, () => ({ action: 'accept', content: { name: tour.person } }));
    this.client.setRequestHandler(sdk.roots, () => ({ roots: [{ uri: tour.root }] }));
    this.client.setNotificationHandler(sdk.log, () => this.onLog());
  }

  transport() {
    const { url, command, transport } = this.tour;
    if (transport === 'stdio') return new sdk.Stdio({ command: command[0], args: command.slice(1), stderr: 'ignore' });
    return transport === 'sse' ? new sdk.Sse(new URL(url)) : new sdk.Http(new URL(url));
  }

  async run() {
    const transport = this.transport();
    await this.client.connect(transport, { timeout: REQUEST_MS });
    try {
      const { tools } = await this.client.listTools(undefined, { timeout: REQUEST_MS });
      const names = tools.map(tool => tool.name);
      for (const step of this.tour.steps) {
        if (!names.includes(step.tool)) throw new Error(`no tool ${step.tool} among ${names}`);
        await this.step(step);
      }
      // What the transport noticed by itself: an event that could not be parsed, a stream that was refused.
      if (this.errors.length > 0) throw this.errors[0];
    } finally {
      this.client.onerror = () => {};
      if (this.tour.transport === 'streamable-http') await transport.terminateSession();
      await this.client.close();
    }
  }

  async step({ tool, given, expect, progress, log }) {
    const seen = [];
    const onprogress = progress ? step => seen.push(step.progress) : undefined;
    const result = await sdk.call(this.client, { name: tool, arguments: given }, { timeout: REQUEST_MS, onprogress });
    const said = (result.content ?? []).map(part => part.text ?? '').join('\n');
    if (result.isError) throw new Error(`${tool} failed: ${said}`);
    for (const part of expect) {
      if (!said.includes(part)) throw new Error(`${tool}: ${JSON.stringify(part)} is not in ${said.slice(0, 500)}`);
    }
    const steps = Array.from({ length: progress ?? 0 }, (_, index) => index + 1);
    // The last one may have been late: see above.
    const told = [steps.join(), steps.slice(0, -1).join()].includes(seen.join());
    if (!told) throw new Error(`${tool}: progress came as ${seen}`);
    if (log) await within(LOG_MS, this.logged, `${tool}: no log message`);
  }
}

function within(ms, promise, otherwise) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${otherwise} within ${ms} ms`)), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

for await (const line of createInterface({ input: process.stdin })) {
  const tour = JSON.parse(line);
  const began = Date.now();
  let error = null;
  try {
    await new Visit(tour).run();
  } catch (caught) {
    error = `${caught?.message ?? caught}${caught?.cause ? ` (${caught.cause.message})` : ''}`;
  }
  console.log(JSON.stringify({ name: tour.name, ms: Date.now() - began, error }));
}
process.exit(0);
