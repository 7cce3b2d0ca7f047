// Functions on the official Java SDK.
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import org.apache.flink.statefun.sdk.java.Address;
import org.apache.flink.statefun.sdk.java.Context;
import org.apache.flink.statefun.sdk.java.StatefulFunction;
import org.apache.flink.statefun.sdk.java.StatefulFunctionSpec;
import org.apache.flink.statefun.sdk.java.StatefulFunctions;
import org.apache.flink.statefun.sdk.java.TypeName;
import org.apache.flink.statefun.sdk.java.ValueSpec;
import org.apache.flink.statefun.sdk.java.io.KafkaEgressMessage;
import org.apache.flink.statefun.sdk.java.message.EgressMessageBuilder;
import org.apache.flink.statefun.sdk.java.message.Message;
import org.apache.flink.statefun.sdk.java.message.MessageBuilder;

public final class Services {
  private static final TypeName COUNTER = type("lab/counter");
  private static final TypeName OUT = type("lab/out");
  private static final Duration LIFE = Duration.ofSeconds(1);
  private static final int SLOW_S = 30;
  private static final String[] VERSIONS = {"none", "number", "text", "more"};

  private static final ValueSpec<Integer> COUNT = ValueSpec.named("count").withIntType();
  private static final ValueSpec<Integer> VISITS = ValueSpec.named("visits").withIntType();
  private static final ValueSpec<String> LAST_NAME =
      ValueSpec.named("last_name").thatExpireAfterWrite(Duration.ofDays(1)).withUtf8StringType();
  private static final ValueSpec<String> LOG = ValueSpec.named("log").withUtf8StringType();
  private static final ValueSpec<Integer> OTHER = ValueSpec.named("other").withIntType();
  private static final ValueSpec<Integer> WRITTEN =
      ValueSpec.named("written").thatExpireAfterWrite(LIFE).withIntType();
  private static final ValueSpec<Integer> CALLED =
      ValueSpec.named("called").thatExpiresAfterCall(LIFE).withIntType();
  private static final ValueSpec<Integer> NUMBER = ValueSpec.named("kept").withIntType();
  private static final ValueSpec<String> TEXT = ValueSpec.named("kept").withUtf8StringType();
  private static final ValueSpec<Integer> MORE = ValueSpec.named("more").withIntType();

  /** A function that has ended when it returns. */
  private interface Plain {
    void apply(Context context, Message message);
  }

  public static void main(String[] args) throws IOException {
    StatefulFunctions functions = new StatefulFunctions();
    bind(functions, "lab/counter", Services::count, COUNT);
    bind(functions, "lab/greeter", Services::greet, VISITS, LAST_NAME);
    bind(functions, "lab/failing", Services::fail, COUNT);
    bind(functions, "lab/log", (context, message) -> remember(context, message.asUtf8String()), LOG, OTHER);
    bind(functions, "lab/callers", Services::rememberCaller, LOG);
    bind(functions, "lab/act", Services::act, LOG);
    bind(functions, "lab/keep", Services::keep, WRITTEN, CALLED);
    bindAsync(functions, "lab/echo", Services::echo);

    HttpServer server = Serving.at(args[0]);
    Serving.serve(server, "/statefun", functions);
    for (String version : VERSIONS) {
      Serving.serve(server, "/statefun/" + version, versioned(version));
    }
    server.start();
  }

  private static void count(Context context, Message message) {
    int count = context.storage().get(COUNT).orElse(0) + 1;
    context.storage().set(COUNT, count);
    if (context.caller().isPresent() && message.isUtf8String() && message.asUtf8String().equals("x")) {
      context.send(MessageBuilder.forAddress(context.caller().get()).withValue(count).build());
    }
  }

  private static void greet(Context context, Message message) {
    String name = message.asUtf8String(), id = context.self().id();
    int visits = context.storage().get(VISITS).orElse(0) + 1;
    context.storage().set(VISITS, visits);
    context.storage().set(LAST_NAME, name);
    context.send(MessageBuilder.forAddress(COUNTER, id).withValue(visits).build());
    context.sendAfter(Duration.ofMillis(20), "token-" + id, text(COUNTER, id + "-later", "tick"));
    if (name.equals("cancel")) {
      context.cancelDelayedMessage("token-" + id);
    }
    context.send(
        KafkaEgressMessage.forEgress(OUT)
            .withTopic("greetings")
            .withUtf8Key(id)
            .withUtf8Value(name + " " + visits)
            .build());
  }

  private static void fail(Context context, Message message) {
    context.storage().set(COUNT, context.storage().get(COUNT).orElse(0) + 1);
    if (message.asUtf8String().equals("fail")) {
      throw new IllegalStateException("as told");
    }
  }

  // The functions of the conformance checklist, as in lab.py.

  private static void remember(Context context, String text) {
    Optional<String> before = context.storage().get(LOG);
    context.storage().set(LOG, before.map(log -> log + "," + text).orElse(text));
  }

  private static void rememberCaller(Context context, Message message) {
    String who = context.caller().map(Services::shown).orElse("nobody");
    remember(context, message.asUtf8String() + " from " + who);
  }

  private static void act(Context context, Message message) {
    String[] parts = message.asUtf8String().split(";");
    remember(context, parts[0]);
    for (String command : Arrays.copyOfRange(parts, 1, parts.length)) {
      String[] words = command.split(" ");
      switch (words[0]) {
        case "send":
          context.send(text(type(words[1]), words[2], words[3]));
          break;
        case "after":
          Duration delay = Duration.ofMillis(Long.parseLong(words[1]));
          Message later = text(type(words[2]), words[3], words[4]);
          if (words.length > 5) {
            context.sendAfter(delay, words[5], later);
          } else {
            context.sendAfter(delay, later);
          }
          break;
        case "cancel":
          context.cancelDelayedMessage(words[1]);
          break;
        case "egress":
          context.send(EgressMessageBuilder.forEgress(OUT).withValue(words[1]).build());
          break;
        default:
          throw new IllegalArgumentException(command + " is no command");
      }
    }
  }

  private static void keep(Context context, Message message) {
    String found = shown(context.storage().get(WRITTEN)) + " " + shown(context.storage().get(CALLED));
    if (message.asUtf8String().equals("set")) {
      context.storage().set(WRITTEN, 1);
      context.storage().set(CALLED, 1);
    }
    reply(context, found);
  }

  private static CompletableFuture<Void> echo(Context context, Message message) {
    String text = message.asUtf8String();
    if (text.equals("fail")) {
      throw new IllegalStateException("as told");
    }
    if (text.equals("sleep")) {
      Executor later = CompletableFuture.delayedExecutor(SLOW_S, TimeUnit.SECONDS);
      return CompletableFuture.runAsync(() -> reply(context, text), later);
    }
    reply(context, text);
    return context.done();
  }

  private static StatefulFunctions versioned(String version) {
    StatefulFunctions functions = new StatefulFunctions();
    ValueSpec<?>[] specs = new ValueSpec<?>[0];
    if (version.equals("number")) {
      specs = new ValueSpec<?>[] {NUMBER};
    } else if (version.equals("text")) {
      specs = new ValueSpec<?>[] {TEXT};
    } else if (version.equals("more")) {
      specs = new ValueSpec<?>[] {NUMBER, MORE};
    }
    Plain versioned =
        (context, message) -> {
          String text = message.asUtf8String(), before = "nothing";
          if (version.equals("text")) {
            before = context.storage().get(TEXT).orElse(before);
            context.storage().set(TEXT, text);
          } else if (!version.equals("none")) {
            before = shown(context.storage().get(NUMBER));
            context.storage().set(NUMBER, Integer.parseInt(text));
          }
          if (version.equals("more")) {
            context.storage().set(MORE, context.storage().get(MORE).orElse(0) + 1);
          }
          reply(context, version + " was " + before);
        };
    bind(functions, "lab/versioned", versioned, specs);
    bindAsync(functions, "lab/echo", Services::echo);
    return functions;
  }

  private static void reply(Context context, String text) {
    context.caller().ifPresent(caller -> context.send(text(caller.type(), caller.id(), text)));
  }

  private static Message text(TypeName type, String id, String text) {
    return MessageBuilder.forAddress(type, id).withValue(text).build();
  }

  private static TypeName type(String name) {
    return TypeName.typeNameFromString(name);
  }

  private static String shown(Address address) {
    return address.type().asTypeNameString() + "/" + address.id();
  }

  private static String shown(Optional<Integer> value) {
    return value.map(String::valueOf).orElse("nothing");
  }

  private static void bind(StatefulFunctions functions, String name, Plain plain, ValueSpec<?>... specs) {
    StatefulFunction function =
        (context, message) -> {
          plain.apply(context, message);
          return context.done();
        };
    bindAsync(functions, name, function, specs);
  }

  private static void bindAsync(
      StatefulFunctions functions, String name, StatefulFunction function, ValueSpec<?>... specs) {
    functions.withStatefulFunction(
        StatefulFunctionSpec.builder(type(name)).withValueSpecs(specs).withSupplier(() -> function).build());
  }
}
