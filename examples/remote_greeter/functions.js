// The same two functions on Apache's JavaScript SDK: node functions.js 8000
"use strict";
const http = require("http");
const { StateFun, messageBuilder, egressMessageBuilder } = require("apache-flink-statefun");

const GREET_REQUEST = StateFun.jsonType("example/GreetRequest");
const EGRESS_RECORD = StateFun.jsonType("io.statefun.playground/EgressRecord");
const SECONDS_TO_THINK = 1.0;

const statefun = new StateFun();

statefun.bind({
  typename: "example/person",
  specs: [{ name: "visits", type: StateFun.intType() }],
  fn(context, message) {
    const { name } = message.as(GREET_REQUEST);
    const visits = (context.storage.visits || 0) + 1;
    context.storage.visits = visits;
    context.send(
      messageBuilder({ typename: "example/greeter", id: name, value: { name, visits }, valueType: GREET_REQUEST }),
    );
  },
});

statefun.bind({
  typename: "example/greeter",
  async fn(context, message) {
    const { name, visits } = message.as(GREET_REQUEST);
    await new Promise((resolve) => setTimeout(resolve, SECONDS_TO_THINK * 1000));
    context.send(
      egressMessageBuilder({
        typename: "io.statefun.playground/egress",
        value: { topic: "greetings", payload: greeting(name, visits) },
        valueType: EGRESS_RECORD,
      }),
    );
  },
});

function greeting(name, visits) {
  switch (visits) {
    case 1:
      return `Welcome ${name}`;
    case 2:
      return `Nice to see you again ${name}`;
    case 3:
      return `Third time is a charm ${name}`;
    default:
      return `Nice to see you at the ${visits}-nth time ${name}!`;
  }
}

http.createServer(statefun.handler()).listen(Number(process.argv[2] || 8000), "127.0.0.1");
