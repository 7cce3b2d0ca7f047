// The six functions of functions.py on Apache's JavaScript SDK: node functions.js 8000
"use strict";
const http = require("http");
const {
  StateFun,
  egressMessageBuilder,
  kafkaEgressMessage,
  kinesisEgressMessage,
  messageBuilder,
} = require("apache-flink-statefun");
const { UserProfile } = require("./user_profile_pb");

const statefun = new StateFun();

const GREET_REQUEST = StateFun.jsonType("showcase/GreetRequest");
const BASKET = StateFun.jsonType("showcase/Basket");
const USER_PROFILE = StateFun.protoType("type.googleapis.com/showcase.UserProfile", UserProfile);
const CELSIUS = StateFun.customType(
  "showcase/Celsius",
  (degrees) => Buffer.from(String(degrees)),
  (bytes) => Number(bytes.toString()),
);
const EGRESS_RECORD = StateFun.jsonType("io.statefun.playground/EgressRecord");

// -- types --------------------------------------------------------------------------------

// Say what came. Four types are built in (JavaScript has no long and no double of its own); JSON,
// protobuf and your own bytes are as good.
statefun.bind({
  typename: "showcase/types",
  fn(context, message) {
    let said;
    if (message.isBoolean()) {
      said = `a bool: ${message.asBoolean()}`;
    } else if (message.isInt()) {
      said = `an int of 32 bits: ${message.asInt()}`;
    } else if (message.isFloat()) {
      said = `a float: ${message.asFloat()}`;
    } else if (message.isString()) {
      said = `a string: ${message.asString()}`;
    } else if (message.is(GREET_REQUEST)) {
      said = `JSON: somebody called ${message.as(GREET_REQUEST).name}`;
    } else if (message.is(USER_PROFILE)) {
      const profile = message.as(USER_PROFILE);
      said = `protobuf: ${profile.getName()} likes ${profile.getFavoriteIceCream()} and ${profile.getFavoriteShow()}`;
    } else if (message.is(CELSIUS)) {
      said = `a type of our own: ${message.as(CELSIUS)} degrees`;
    } else {
      said = `${message.valueTypeName}, which nobody here knows: ${message.rawValueBytes}`;
    }
    say(context, "types", said);
  },
});

// -- messaging ----------------------------------------------------------------------------

// Send messages. A type and an id are an address; where that is, the runtime knows.
statefun.bind({
  typename: "showcase/messaging",
  fn(context, message) {
    const me = context.self;
    const toTypes = (value, valueType) =>
      context.send(messageBuilder({ typename: "showcase/types", id: me.id, value, valueType }));
    const toMyself = (text) => messageBuilder({ typename: me.typename, id: me.id, value: text });

    if (message.is(USER_PROFILE)) {
      // what showcase/async answers, see the end
      toTypes(message.as(USER_PROFILE), USER_PROFILE);
      return;
    }
    if (context.caller && context.caller.typename === me.typename && context.caller.id === me.id) {
      say(context, "messaging", `a note of ${me.id} to itself: ${message.asString()}`);
      return;
    }

    // From one sender to one receiver they arrive in this order. Strings and integers need no type.
    toTypes(true, StateFun.booleanType());
    toTypes(123);
    toTypes(2.5, StateFun.floatType());
    toTypes("Hello!");
    toTypes({ name: "Joe" }, GREET_REQUEST);
    toTypes(21.5, CELSIUS);

    // To oneself: now, later, and never. A delayed message outlives any crash; its token can call it off.
    context.send(toMyself("now"));
    context.sendAfter(1000, toMyself("a second later"));
    context.sendAfter(500, toMyself("never"), "changed my mind");
    context.cancelDelayedMessage("changed my mind");

    // A question: the answer is a message like any other, and comes to us because we are its caller.
    context.send(messageBuilder({ typename: "showcase/async", id: me.id, value: "who am I?" }));
  },
});

// -- egress -------------------------------------------------------------------------------

// Send records out. What leaves is what was sent, once, after the state it comes from is safe.
statefun.bind({
  typename: "showcase/egress",
  fn(context, message) {
    const name = context.self.id;
    const text = message.asString();

    // In JavaScript, send takes messages and egress records alike.
    context.send(kafkaEgressMessage({ typename: "showcase/greets", topic: "greetings", key: name, value: text }));
    context.send(
      kinesisEgressMessage({ typename: "showcase/kinesis", stream: "greetings", partitionKey: name, value: text }),
    );

    // Any other egress takes a value of the type it knows. The playground's are read with curl.
    context.send(
      egressMessageBuilder({
        typename: "io.statefun.playground/egress",
        value: { topic: "egress", payload: `${name} says ${text}` },
        valueType: EGRESS_RECORD,
      }),
    );
  },
});

// Put a text where `curl 127.0.0.1:8091/<topic>` finds it.
function say(context, topic, text) {
  context.send(
    egressMessageBuilder({
      typename: "io.statefun.playground/egress",
      value: { topic, payload: text },
      valueType: EGRESS_RECORD,
    }),
  );
}

// -- storage ------------------------------------------------------------------------------

// Remember something for one id. No other id sees it, and no lock is needed.
statefun.bind({
  typename: "showcase/storage",
  specs: [
    { name: "calls", type: StateFun.intType() },
    { name: "bargain", type: StateFun.stringType(), expireAfterWrite: 2000 },
    { name: "basket", type: BASKET },
  ],
  fn(context, message) {
    const storage = context.storage;
    const text = message.asString();

    storage.calls = (storage.calls || 0) + 1; // what was never set is null

    if (storage.bargain === null) {
      storage.bargain = text; // never set, or more than two seconds old
    }

    if (text === "check out") {
      storage.basket = null; // deletes it
    } else {
      // A value that is read is a copy. To change it, assign it.
      storage.basket = [...(storage.basket || []), text];
    }

    const basket = (storage.basket || ["nothing"]).join(", ");
    say(context, "storage", `call ${storage.calls}, basket: ${basket}; bargain: ${storage.bargain}`);
  },
});

// -- async --------------------------------------------------------------------------------

// Ask two services at once, remember what they said, and answer. Other ids do not wait for it.
statefun.bind({
  typename: "showcase/async",
  specs: [{ name: "profile", type: USER_PROFILE }],
  async fn(context, message) {
    let profile = context.storage.profile;
    if (profile === null) {
      const name = context.self.id;
      const [iceCream, show] = await Promise.all([favoriteIceCream(name), favoriteShow(name)]);
      profile = new UserProfile();
      profile.setName(name);
      profile.setFavoriteIceCream(iceCream);
      profile.setFavoriteShow(show);
      context.storage.profile = profile;
    }

    const asking = context.caller;
    if (asking) {
      // who comes from outside and does not wait is nobody's caller
      context.send(
        messageBuilder({ typename: asking.typename, id: asking.id, value: profile, valueType: USER_PROFILE }),
      );
    }
  },
});

// Two services that take their time.
const favoriteIceCream = (name) => new Promise((resolve) => setTimeout(resolve, 100, "mint chocolate"));
const favoriteShow = (name) => new Promise((resolve) => setTimeout(resolve, 200, "The Office"));

// -- serving ------------------------------------------------------------------------------

// Greet whoever the Kafka topic `names` names; the record's key is our id.
statefun.bind({
  typename: "showcase/serving",
  specs: [{ name: "seen", type: StateFun.intType() }],
  fn(context, message) {
    const { name } = message.as(GREET_REQUEST);
    const seen = (context.storage.seen || 0) + 1;
    context.storage.seen = seen;

    const greeting = `Hello ${name}! I've seen you ${seen} times!`;
    console.log(greeting); // after a crash perhaps once more; the record below leaves once
    context.send(kafkaEgressMessage({ typename: "showcase/greets", topic: "greetings", key: name, value: greeting }));
  },
});

http.createServer(statefun.handler()).listen(Number(process.argv[2] || 8000), "127.0.0.1");
