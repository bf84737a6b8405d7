// What Connect's own client for browsers makes of the engine in protobuf: prints JSON, which the test compares.

import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import path from 'node:path'

const [folder, baseUrl, headers, described] = process.argv.slice(2)
const require = createRequire(path.join(folder, 'package.json'))
const { create, createFileRegistry, fromBinary, toJson } = require('@bufbuild/protobuf')
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_timestamp } = require('@bufbuild/protobuf/wkt')
const { Code, createClient } = require('@connectrpc/connect')
const { createConnectTransport, createGrpcWebTransport } = require('@connectrpc/connect-web')

const files = JSON.parse(readFileSync(described, 'utf8')).map((file) => fromBinary(FileDescriptorProtoSchema, Buffer.from(file, 'base64')))
const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_timestamp.proto, ...files] }))
const options = { headers: JSON.parse(headers) }

const refusal = async (call) => {
  try {
    await call()
  } catch (error) {
    return `${Code[error.code]}: ${error.rawMessage}`
  }
}

const operate = async (transport) => {
  const commands = createClient(registry.getService('process.Process'), transport)
  const tree = createClient(registry.getService('filesystem.Filesystem'), transport)
  const events = []
  const question = { process: { cmd: '/bin/sh', args: ['-c', 'printf "ä\\377"; exit 7'] } }
  for await (const message of commands.start(question, options)) events.push(toJson(registry.getMessage('process.StartResponse'), message))
  const { entries } = await tree.listDir({ path: '/', depth: 1 }, options)
  return {
    events: events.slice(1),
    usr: entries.filter((entry) => entry.name === 'usr').map((entry) => [entry.path, entry.type, entry.modifiedTime.seconds > 0n]),
    refusals: [
      await refusal(() => tree.stat({ path: '/nö' }, options)),
      await refusal(async () => { for await (const _ of commands.connect({ process: { selector: { case: 'tag', value: 'nobody' } } }, options)); }),
    ],
    nothing: toJson(registry.getMessage('filesystem.RemoveResponse'), await tree.remove({ path: '/tmp/nothing' }, options)),
  }
}

console.log(JSON.stringify({
  connect: await operate(createConnectTransport({ baseUrl, useBinaryFormat: true })),
  web: await operate(createGrpcWebTransport({ baseUrl })),
}))
