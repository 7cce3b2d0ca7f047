// Functions on the official JavaScript SDK; run with its packages beside it.
"use strict";
const http = require("http");
const { StateFun, messageBuilder, egressMessageBuilder, kafkaEgressMessage } = require("apache-flink-statefun");

const statefun = new StateFun();

statefun.bind({
  typename: "lab/counter",
  specs: [{ name: "count", type: StateFun.intType() }],
  fn(context, message) {
    context.storage.count = (context.storage.count || 0) + 1;
    if (context.caller && message.isString() && message.asString() === "x") {
      context.send(
        messageBuilder({
          typename: context.caller.typename,
          id: context.caller.id,
          value: context.storage.count,
          valueType: StateFun.intType(),
        }),
      );
    }
  },
});

statefun.bind({
  typename: "lab/greeter",
  specs: [
    { name: "visits", type: StateFun.intType() },
    { name: "last_name", type: StateFun.stringType() },
  ],
  fn(context, message) {
    const name = message.asString();
    const visits = (context.storage.visits || 0) + 1;
    const id = context.self.id;
    context.storage.visits = visits;
    context.storage.last_name = name;
    context.send(
      messageBuilder({ typename: "lab/counter", id: id, value: visits, valueType: StateFun.intType() }),
    );
    context.sendAfter(
      20,
      messageBuilder({ typename: "lab/counter", id: id + "-later", value: "tick", valueType: StateFun.stringType() }),
      "token-" + id,
    );
    if (name === "cancel") {
      context.cancelDelayedMessage("token-" + id);
    }
    context.send(
      kafkaEgressMessage({
        typename: "lab/out",
        topic: "greetings",
        key: id,
        value: name + " " + visits,
        valueType: StateFun.stringType(),
      }),
    );
  },
});

statefun.bind({
  typename: "lab/failing",
  specs: [{ name: "count", type: StateFun.intType() }],
  fn(context, message) {
    context.storage.count = (context.storage.count || 0) + 1;
    if (message.asString() === "fail") {
      throw new Error("as told");
    }
  },
});

// The functions of the conformance checklist, as in lab.py.

const VERSIONS = {
  none: {},
  number: { kept: StateFun.intType() },
  text: { kept: StateFun.stringType() },
  more: { kept: StateFun.intType(), more: StateFun.intType() },
};
const LOG = { name: "log", type: StateFun.stringType() };
const SLOW_MS = 30_000;
const LIFE_MS = 1_000;

function textTo(typename, id, text) {
  return messageBuilder({ typename: typename, id: id, value: text, valueType: StateFun.stringType() });
}

function reply(context, text) {
  if (context.caller) {
    context.send(textTo(context.caller.typename, context.caller.id, text));
  }
}

function remember(context, text) {
  const before = context.storage.log;
  context.storage.log = before ? `${before},${text}` : text;
}

statefun.bind({
  typename: "lab/log",
  specs: [LOG, { name: "other", type: StateFun.intType() }],
  fn(context, message) {
    remember(context, message.asString());
  },
});

statefun.bind({
  typename: "lab/callers",
  specs: [LOG],
  fn(context, message) {
    const who = context.caller ? `${context.caller.typename}/${context.caller.id}` : "nobody";
    remember(context, `${message.asString()} from ${who}`);
  },
});

statefun.bind({
  typename: "lab/act",
  specs: [LOG],
  fn(context, message) {
    const [said, ...commands] = message.asString().split(";");
    remember(context, said);
    commands.forEach((command) => act(context, command));
  },
});

function act(context, command) {
  const [kind, ...fields] = command.split(" ");
  switch (kind) {
    case "send":
      context.send(textTo(...fields));
      break;
    case "after":
      context.sendAfter(Number(fields[0]), textTo(...fields.slice(1, 4)), fields[4]);
      break;
    case "cancel":
      context.cancelDelayedMessage(fields[0]);
      break;
    case "egress":
      context.send(
        egressMessageBuilder({ typename: "lab/out", value: fields[0], valueType: StateFun.stringType() }),
      );
      break;
    default:
      throw new Error(`${command} is no command`);
  }
}

statefun.bind({
  typename: "lab/keep",
  specs: [
    { name: "written", type: StateFun.intType(), expireAfterWrite: LIFE_MS },
    { name: "called", type: StateFun.intType(), expireAfterCall: LIFE_MS },
  ],
  fn(context, message) {
    const found = `${context.storage.written ?? "nothing"} ${context.storage.called ?? "nothing"}`;
    if (message.asString() === "set") {
      context.storage.written = 1;
      context.storage.called = 1;
    }
    reply(context, found);
  },
});

function bindEcho(functions) {
  functions.bind({
    typename: "lab/echo",
    async fn(context, message) {
      const text = message.asString();
      if (text === "fail") {
        throw new Error("as told");
      }
      if (text === "sleep") {
        await new Promise((resolve) => setTimeout(resolve, SLOW_MS));
      }
      reply(context, text);
    },
  });
}

function versioned(version) {
  const functions = new StateFun();
  const states = VERSIONS[version];
  functions.bind({
    typename: "lab/versioned",
    specs: Object.entries(states).map(([name, type]) => ({ name: name, type: type })),
    fn(context, message) {
      let before = null;
      if (states.kept) {
        before = context.storage.kept;
        context.storage.kept = version === "text" ? message.asString() : Number(message.asString());
      }
      if (states.more) {
        context.storage.more = (context.storage.more || 0) + 1;
      }
      reply(context, `${version} was ${before ?? "nothing"}`);
    },
  });
  bindEcho(functions);
  return functions;
}

bindEcho(statefun);

const handlers = { "/statefun": statefun.handler() };
for (const version of Object.keys(VERSIONS)) {
  handlers[`/statefun/${version}`] = versioned(version).handler();
}

http
  .createServer((request, response) => {
    const handler = handlers[request.url];
    if (handler) {
      handler(request, response);
    } else {
      response.writeHead(404).end();
    }
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
