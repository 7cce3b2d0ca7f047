// The command interpreter on the official JavaScript SDK.
"use strict";
const http = require("http");
const { StateFun, messageBuilder, egressMessageBuilder } = require("apache-flink-statefun");

const NAMESPACE = "statefun.smoke.e2e";
const SOURCE_COMMAND = StateFun.jsonType(`${NAMESPACE}/source-command`);
const COMMANDS = StateFun.jsonType(`${NAMESPACE}/commands`);
const RESULT = StateFun.jsonType(`${NAMESPACE}/verification-result`);
const TEXT = StateFun.jsonType(`${NAMESPACE}/discarded`);
const OPERATION_FAILED = "the operation failed as told";

const statefun = new StateFun();

statefun.bind({
  typename: `${NAMESPACE}/command-interpreter-fn`,
  specs: [{ name: "state", type: StateFun.intType() }],
  async fn(context, message) {
    const type = message.is(SOURCE_COMMAND) ? SOURCE_COMMAND : COMMANDS;
    await interpret(context, message.as(type).commands);
  },
});

async function interpret(context, commands) {
  for (const command of commands) {
    for (const [kind, fields] of Object.entries(command)) {
      await interpretOne(context, kind, fields);
    }
  }
}

async function interpretOne(context, kind, fields) {
  switch (kind) {
    case "increment":
      context.storage.state = (context.storage.state || 0) + 1;
      break;
    case "send":
      context.send(messageTo(context, fields));
      break;
    case "send_after":
      if (fields.token) {
        context.sendAfter(1, messageTo(context, fields), fields.token);
      } else {
        context.sendAfter(1, messageTo(context, fields));
      }
      break;
    case "cancel_send_after":
      context.cancelDelayedMessage(fields.token);
      break;
    case "send_egress":
      context.send(
        egressMessageBuilder({
          typename: `${NAMESPACE}/discard-sink`,
          value: "discarded-message",
          valueType: TEXT,
        }),
      );
      break;
    case "async_operation":
      // Its commands are due in either outcome, as in StateFun's own suite.
      await operation(fields.failure).catch((error) => {
        if (error.message !== OPERATION_FAILED) {
          throw error;
        }
      });
      await interpret(context, fields.commands);
      break;
    case "verify":
      context.send(
        egressMessageBuilder({
          typename: `${NAMESPACE}/verification-sink`,
          value: {
            id: Number(context.self.id),
            round: fields.round,
            expected: fields.expected,
            actual: context.storage.state || 0,
          },
          valueType: RESULT,
        }),
      );
      break;
    default:
      throw new Error(`${kind} is no command`);
  }
}

function operation(isFailure) {
  return new Promise((resolve, reject) =>
    setTimeout(() => (isFailure ? reject(new Error(OPERATION_FAILED)) : resolve()), 1),
  );
}

function messageTo(context, fields) {
  return messageBuilder({
    typename: `${NAMESPACE}/command-interpreter-fn`,
    id: String(fields.target),
    value: { commands: fields.commands },
    valueType: COMMANDS,
  });
}

http.createServer(statefun.handler()).listen(Number(process.argv[2]), "127.0.0.1");
