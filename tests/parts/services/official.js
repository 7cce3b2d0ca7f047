// Functions on the official JavaScript SDK; run with its packages beside it.
"use strict";
const http = require("http");
const { StateFun, messageBuilder, kafkaEgressMessage } = require("apache-flink-statefun");

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

http.createServer(statefun.handler()).listen(Number(process.argv[2]), "127.0.0.1");
