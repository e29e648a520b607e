// An MCP server on the TypeScript SDK v1, as strict about its streams as that SDK can be: one reader per stream,
// 409 to a second one, and every stream resumable. Run by `cluster-tests/src/real/upstream.rs`; `serve.py` beside
// it has the same tools and prints the same line.

import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { z } from 'zod';

// `<stream>_<number>`, so that the SDK can be told which stream an event is of, and knows whether it has a reader.
class EventStore {
  events = [];

  async storeEvent(stream, message) {
    const id = `${stream}_${this.events.length}`;
    this.events.push({ id, stream, message });
    return id;
  }

  async getStreamIdForEventId(id) {
    return this.events.find((event) => event.id === id)?.stream;
  }

  async replayEventsAfter(last, { send }) {
    const at = this.events.findIndex((event) => event.id === last);
    const { stream } = this.events[at];
    for (const event of this.events.slice(at + 1)) {
      // A priming event has no message.
      if (event.stream === stream && event.message.jsonrpc) await send(event.id, event.message);
    }
    return stream;
  }
}

function tools() {
  const server = new McpServer({ name: 'strict', version: '1' }, { capabilities: { logging: {} } });
  const said = (text) => ({ content: [{ type: 'text', text }] });
  server.registerTool('announce', { inputSchema: { n: z.number() } }, async ({ n }) => {
    await server.server.sendLoggingMessage({ level: 'info', data: { announced: n } });
    return said('Announced');
  });
  server.registerTool('slow', { inputSchema: { ms: z.number() } }, async ({ ms }) => {
    await new Promise((done) => setTimeout(done, ms));
    return said(`slept ${ms} ms`);
  });
  return server;
}

const transports = new Map();

async function open() {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new EventStore(),
    onsessioninitialized: (id) => transports.set(id, transport),
  });
  await tools().connect(transport);
  return transport;
}

const http = createServer(async (request, response) => {
  const id = request.headers['mcp-session-id'];
  const transport = id ? transports.get(id) : await open();
  if (transport) return transport.handleRequest(request, response);
  response.writeHead(404).end();
});
http.listen(0, '127.0.0.1', () => {
  console.log(`strict-ts ready http://127.0.0.1:${http.address().port}/mcp`);
});
