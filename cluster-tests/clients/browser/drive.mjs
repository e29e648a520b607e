// A browser that does as it is told: a command per line on stdin, as JSON; its answer per line on stdout.
// Run by `cluster-tests/src/real/browser.rs`, which judges what the answers say.
//
// One page is open at a time. What a page must not do is gathered beside it: errors on its console, exceptions,
// requests to any other host, violations of its content security policy.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const STEP_MS = 20_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const [program, ...flags] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: program, args: flags });
let context = null;
let page = null;
let troubles = [];

/** Every figure on the page, and the answers it was drawn from, in one moment. */
function figures() {
  const values = (root) => Object.fromEntries(Array.from(root.querySelectorAll('[data-figure]'), (element) => [
    element.dataset.figure, { value: element.dataset.value ?? null, text: element.textContent },
  ]));
  const all = (selector, read) => Array.from(document.querySelectorAll(selector), read);
  return {
    last: window.ringway.last,
    members: Object.fromEntries(all('#members tr', (row) => [row.dataset.node, values(row)])),
    totals: Object.fromEntries(all('[data-total]', (element) => [
      element.dataset.total, { value: element.dataset.value ?? null, text: element.firstChild.textContent },
    ])),
    forwards: all('#forwards td', (cell) => ({ from: cell.dataset.from, to: cell.dataset.to, ...values(cell) })),
    sessions: all('#sessions tr', values),
    arcs: all('[data-arcs-of]', (path) => path.dataset.arcsOf),
    found: values(document.getElementById('found')),
    // What carries a figure and is in none of the lists above would be one that nobody compares.
    others: all('[data-figure]', (element) => element).filter((element) => !element.closest('#members, #forwards, #sessions, #found')).length,
    events: all('#events li', (item) => ({ kind: item.dataset.kind, of: item.dataset.of, text: item.textContent })),
  };
}

const commands = {
  /** Opens `url` in a fresh context (no storage, no cache) of that size and colour scheme. */
  async open({ url, width, height, scheme, scale }) {
    await context?.close();
    context = await browser.newContext({
      viewport: { width, height }, colorScheme: scheme, reducedMotion: 'reduce', deviceScaleFactor: scale,
    });
    context.setDefaultTimeout(STEP_MS);
    page = await context.newPage();
    troubles = [];
    const host = new URL(url).host;
    page.on('console', (said) => { if (['error', 'warning'].includes(said.type())) troubles.push(`console: ${said.text()}`); });
    page.on('pageerror', (error) => troubles.push(`exception: ${error.message}`));
    page.on('dialog', (dialog) => { troubles.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on('request', (request) => { if (new URL(request.url()).host !== host) troubles.push(`foreign: ${request.url()}`); });
    await page.exposeFunction('reportViolation', (text) => { troubles.push(`policy: ${text}`); });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => {
        window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    const answer = await page.goto(url);
    return answer.status();
  },
  figures: () => page.evaluate(figures),
  /** The value of an expression in the page. */
  value: ({ of }) => page.evaluate(of),
  fill: ({ selector, text }) => page.fill(selector, text),
  click: ({ selector }) => page.click(selector),
  press: ({ key }) => page.keyboard.press(key),
  keys: ({ text }) => page.keyboard.type(text),
  screenshot: ({ path, whole }) => page.screenshot({ path, fullPage: whole }),
  /** What axe-core finds against WCAG 2 A and AA: the rule and the first element of each finding. */
  async axe() {
    await page.evaluate(AXE);
    const found = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] }));
    const broken = found.violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
    return { broken, passed: found.passes.length };
  },
  troubles: () => troubles,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await commands[command](rest)) ?? null };
  } catch (error) {
    answer = { error: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
