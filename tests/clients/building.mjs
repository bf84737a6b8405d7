// What building.py does, by the official JavaScript client: prints JSON with the same keys.

import { createRequire } from 'node:module'
import path from 'node:path'

const [folder, name, fileContextPath] = process.argv.slice(2)
const require = createRequire(path.join(folder, 'package.json'))
const { Sandbox, Template, BuildError } = require('e2b')

const steps = () =>
  Template({ fileContextPath })
    .fromBaseImage()
    .setEnvs({ GREETING: 'hello you', MORE: '$GREETING!' })
    .runCmd(`echo to-out; echo to-err >&2; id -un > /tmp/who # ${name}`)
    .runCmd(['cd /opt', 'touch made-by-root'], { user: 'root' })
    .setWorkdir('/app')
    .copy('app', '.')
    .copy('app/run.sh', '/usr/local/bin/run-it', { user: 'root', mode: 0o755 })
    .makeSymlink('/app/main.txt', '/app/latest')
    .setUser('root')
    .runCmd('date +%s%N > /stamp')

const seen = async (template) => {
  const sandbox = await Sandbox.create(template, { timeoutMs: 60_000 })
  try {
    const show = 'find . ! -type d | sort; readlink link latest; run-it; cat /tmp/who /app/latest; ls /opt; id -un; pwd'
    const stat = 'echo "$GREETING|$MORE"; stat -c "%a %U" main.txt /usr/local/bin/run-it'
    const shown = await sandbox.commands.run(`${show}; ${stat}`)
    return [...shown.stdout.trimEnd().split('\n'), await sandbox.files.read('/stamp')]
  } finally {
    await sandbox.kill()
  }
}

const inBackground = async () => {
  const template = Template().fromTemplate(`${name}:v2`).runCmd('echo above')
  const info = await Template.buildInBackground(template, `${name}-above`)
  const deadline = Date.now() + 30_000
  let found = await Template.getBuildStatus(info)
  while (['waiting', 'building'].includes(found.status) && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    found = await Template.getBuildStatus(info)
  }
  return [found.status, found.logEntries.some((entry) => entry.message === 'above'), (await seen(`${name}-above`))[0]]
}

const failed = async () => {
  const template = Template().fromBaseImage().runCmd('true').runCmd('echo before; echo why >&2; exit 7')
  const error = await Template.build(template, `${name}-failed`).catch((error) => error)
  if (!(error instanceof BuildError)) return [String(error)]
  const [first, ...output] = error.message.split('\n')
  return [first.split(': the command')[0], output.sort()]
}

const tags = async (templateId) => {
  const names = async () => (await Template.getTags(templateId)).map((tag) => tag.tag).sort()
  const before = await names()
  const assigned = await Template.assignTags(`${name}:v1`, ['prod', 'stable'])
  const between = await names()
  await Template.removeTags(name, 'stable')
  const known = [await Template.exists(name), await Template.exists(`${name}0`)]
  return [before, assigned.tags.sort(), between, await names(), ...known]
}

// there is no method for this: it is done as their command line does it
const remove = async (templateId) => {
  const headers = { 'X-API-Key': process.env.E2B_API_KEY }
  const answer = await fetch(`${process.env.E2B_API_URL}/templates/${templateId}`, { method: 'DELETE', headers })
  return [answer.status, await Template.exists(name)]
}

const built = async (target, options) => {
  const messages = []
  const info = await Template.build(steps(), target, { ...options, onBuildLogs: (entry) => messages.push(entry.message) })
  return [info, messages]
}

const [info, log] = await built(`${name}:v1`, { cpuCount: 1, memoryMB: 512 })
const first = await seen(`${name}:v1`)
const [, again] = await built(name, { tags: ['v2'] })
const results = {
  built: [info.name === `${name}:v1`, info.tags],
  seen: first.slice(0, -1),
  logged: ['to-out', 'to-err'].map((words) => log.includes(words)),
  uploaded: log.filter((message) => message.startsWith('Uploaded')).length,
  cached: again.filter((message) => message.startsWith('CACHED')).length,
  'run again': again.includes('to-out'),
  kept: JSON.stringify(await seen(`${name}:v2`)) === JSON.stringify(first),
  'in the background': await inBackground(),
  failed: await failed(),
  tags: await tags(info.templateId),
  delete: await remove(info.templateId),
}
process.stdout.write(JSON.stringify(results))
process.exit(0)
