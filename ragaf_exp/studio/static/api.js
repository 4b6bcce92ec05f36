// The server's routes. The token comes in the fragment, which no server log has, and leaves the address at once.
const fragment = new URLSearchParams(location.hash.slice(1));
const stored = (key, value) => (sessionStorage[key] ??= value);
if (fragment.get('token')) sessionStorage.token = fragment.get('token');
export const linked = fragment.get('r');
history.replaceState(null, '', location.pathname);
const client = stored('client', Array.from(crypto.getRandomValues(new Uint8Array(12)), n => n.toString(16).padStart(2, '0')).join(''));

export const about = { state: 'loading', progress: 0, width: 64, height: 64 };

async function request(path, options = {}) {
  const headers = { 'X-Studio-Token': sessionStorage.token ?? '', 'X-Studio-Client': client, ...options.headers };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('The studio does not answer. Start it again with python -m ragaf_exp.studio, then open its new link.');
  }
  if (answer.ok) return answer;
  const reason = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(reason.error ?? `The studio answered ${answer.status}.`), { status: answer.status });
}

export const get = async path => (await request('/api/' + path)).json();
export const blob = async path => (await request('/api/' + path)).blob();
export const post = async (path, body) => (await request('/api/' + path, { method: 'POST', body })).json();
export const postJson = (path, value) => post(path, new Blob([JSON.stringify(value)], { type: 'application/json' }));
export const remove = async path => (await request('/api/' + path, { method: 'DELETE' })).json();

export async function poll(onchange) {
  do {
    Object.assign(about, await get('about'));
    onchange();
    if (about.state === 'loading') await new Promise(resolve => setTimeout(resolve, 500));
  } while (about.state === 'loading');
}

// Server-sent events by fetch, since EventSource cannot send a header. Resumes where a connection broke.
export async function* events(job) {
  for (let last = '', tries = 0; tries < 5; tries++) {
    try {
      const answer = await request(`/api/jobs/${job}/events`, { headers: last ? { 'Last-Event-ID': last } : {} });
      for await (const event of parsed(answer.body)) {
        last = event.id || last;
        tries = 0;
        yield event;
        if (['done', 'error', 'stopped'].includes(event.name)) return;
      }
    } catch (error) {
      if (error.status || tries === 4) throw error;
      await new Promise(resolve => setTimeout(resolve, 300));
    }
  }
  throw new Error('The connection broke before the picture was done. Try again.');
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const field = name => block.split('\n').find(line => line.startsWith(name + ':'))?.slice(name.length + 1).trim();
      if (field('data')) yield { id: field('id'), name: field('event'), data: JSON.parse(field('data')) };
    }
  }
}
