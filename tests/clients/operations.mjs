// What the official JavaScript client does on the engine: prints JSON, which the test compares with what it must be.

import { createRequire } from 'node:module'
import path from 'node:path'

const [folder, group] = process.argv.slice(2)
const require = createRequire(path.join(folder, 'package.json'))
const { Sandbox, CommandExitError } = require('e2b')

const results = {}

const seen = (handler) => {
  const pieces = []
  return [pieces, (piece) => void pieces.push(handler ? handler(piece) : piece)]
}

const until = async (done) => {
  const deadline = Date.now() + 10_000
  while (!done() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20))
  return done()
}

const operations = {
  async commands(sandbox) {
    const [out, onStdout] = seen()
    const result = await sandbox.commands.run('echo $GLOBAL; echo err >&2', { onStdout })
    const failure = await sandbox.commands.run('exit 3').catch((error) => error)
    return [result.stdout, result.stderr, result.exitCode, out.join(''), failure instanceof CommandExitError, failure.exitCode]
  },
  async background(sandbox) {
    const handle = await sandbox.commands.run('sleep 0.2; echo done', { background: true })
    const listed = (await sandbox.commands.list()).some((process) => process.pid === handle.pid)
    const result = await handle.wait()
    const long = await sandbox.commands.run('sleep 600', { background: true })
    const killed = await long.kill()
    await long.wait().catch(() => undefined)
    return [listed, result.stdout, killed]
  },
  async stdin(sandbox) {
    const handle = await sandbox.commands.run('sort', { background: true, stdin: true })
    await sandbox.commands.sendStdin(handle.pid, 'b\na\n')
    await sandbox.commands.closeStdin(handle.pid)
    return (await handle.wait()).stdout
  },
  async files(sandbox) {
    const info = await sandbox.files.write('notes/ü.txt', 'text ü')
    const bytes = await sandbox.files.read('notes/ü.txt', { format: 'bytes' })
    await sandbox.files.write([{ path: '/tmp/a', data: '1' }, { path: '/tmp/b', data: '22' }])
    const entries = (await sandbox.files.list('/tmp')).map((entry) => [entry.name, entry.size]).sort()
    const made = [await sandbox.files.makeDir('/tmp/d'), await sandbox.files.makeDir('/tmp/d')]
    await sandbox.files.rename('/tmp/a', '/tmp/d/a')
    await sandbox.files.remove('/tmp/b')
    const there = [await sandbox.files.exists('/tmp/d/a'), await sandbox.files.exists('/tmp/b')]
    return [info.path, await sandbox.files.read('notes/ü.txt'), bytes.length, entries.filter(([name]) => name.length === 1), made, there]
  },
  async watch(sandbox) {
    const [events, onEvent] = seen((event) => `${event.type} ${event.name}`)
    const handle = await sandbox.files.watchDir('/tmp/d', onEvent)
    await sandbox.files.write('/tmp/d/new', 'x')
    const told = await until(() => events.includes('create new'))
    await handle.stop()
    return told
  },
  async pty(sandbox) {
    const [shown, onData] = seen((data) => Buffer.from(data).toString())
    const pty = await sandbox.pty.create({ rows: 30, cols: 100, onData })
    await sandbox.pty.resize(pty.pid, { rows: 31, cols: 101 })
    await sandbox.pty.sendInput(pty.pid, Buffer.from('stty size; echo $((6 * 7)); exit\n'))
    const result = await pty.wait()
    return [shown.join('').includes('31 101'), shown.join('').includes('\n42\r'), result.exitCode]
  },
  async list(sandbox) {
    const paginator = Sandbox.list({ query: { metadata: { group } } })
    return (await paginator.nextItems()).map((info) => info.sandboxId === sandbox.sandboxId)
  },
  async metrics(sandbox) {
    let found = []
    await until(() => found.length || void sandbox.getMetrics().then((samples) => (found = samples)))
    return [found[0].cpuCount, found[0].memTotal > 0]
  },
  async pause(sandbox) {
    const paused = [await sandbox.pause(), await sandbox.isRunning()]
    const again = await Sandbox.connect(sandbox.sandboxId)
    return [...paused, await again.isRunning(), await again.files.read('/tmp/d/a')]
  },
  async snapshot(sandbox) {
    const snapshot = await sandbox.createSnapshot()
    const copy = await Sandbox.create(snapshot.snapshotId)
    const kept = await copy.files.read('/tmp/d/a')
    return [kept, await copy.kill() ?? null, await Sandbox.deleteSnapshot(snapshot.snapshotId)]
  },
  async kill(sandbox) {
    await sandbox.kill()
    return [await sandbox.isRunning(), await Sandbox.kill(sandbox.sandboxId)]
  },
}

const sandbox = await Sandbox.create('base', { metadata: { group }, envs: { GLOBAL: 'g' } })
try {
  for (const [name, operation] of Object.entries(operations)) {
    results[name] = await operation(sandbox).catch((error) => `${error.name}: ${error.message}`)
  }
} finally {
  await sandbox.kill().catch(() => undefined)
}
console.log(JSON.stringify(results))
process.exit(0)
