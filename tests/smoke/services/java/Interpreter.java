// The command interpreter on the official Java SDK.
import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import org.apache.flink.statefun.sdk.java.Context;
import org.apache.flink.statefun.sdk.java.StatefulFunction;
import org.apache.flink.statefun.sdk.java.StatefulFunctionSpec;
import org.apache.flink.statefun.sdk.java.StatefulFunctions;
import org.apache.flink.statefun.sdk.java.TypeName;
import org.apache.flink.statefun.sdk.java.ValueSpec;
import org.apache.flink.statefun.sdk.java.message.EgressMessageBuilder;
import org.apache.flink.statefun.sdk.java.message.Message;
import org.apache.flink.statefun.sdk.java.message.MessageBuilder;
import org.apache.flink.statefun.sdk.java.types.SimpleType;
import org.apache.flink.statefun.sdk.java.types.Type;

public final class Interpreter implements StatefulFunction {
  private static final String NAMESPACE = "statefun.smoke.e2e";
  private static final TypeName FUNCTION = name("command-interpreter-fn");
  private static final Type<JsonObject> SOURCE_COMMAND = json("source-command", JsonObject.class);
  private static final Type<JsonObject> COMMANDS = json("commands", JsonObject.class);
  private static final Type<JsonObject> RESULT = json("verification-result", JsonObject.class);
  private static final Type<String> TEXT = json("discarded", String.class);
  private static final ValueSpec<Integer> STATE = ValueSpec.named("state").withIntType();
  private static final Executor LATER = CompletableFuture.delayedExecutor(1, TimeUnit.MILLISECONDS);

  /** As the command said. */
  private static final class OperationFailed extends RuntimeException {}

  public static void main(String[] args) throws IOException {
    StatefulFunctionSpec spec =
        StatefulFunctionSpec.builder(FUNCTION).withValueSpec(STATE).withSupplier(Interpreter::new).build();
    HttpServer server = Serving.at(args[0]);
    Serving.serve(server, "/statefun", new StatefulFunctions().withStatefulFunction(spec));
    server.start();
  }

  @Override
  public CompletableFuture<Void> apply(Context context, Message message) {
    Type<JsonObject> type = message.is(SOURCE_COMMAND) ? SOURCE_COMMAND : COMMANDS;
    return interpret(context, message.as(type).getAsJsonArray("commands"));
  }

  private static CompletableFuture<Void> interpret(Context context, JsonArray commands) {
    CompletableFuture<Void> done = CompletableFuture.completedFuture(null);
    for (JsonElement command : commands) {
      for (Map.Entry<String, JsonElement> entry : command.getAsJsonObject().entrySet()) {
        JsonObject fields = entry.getValue().getAsJsonObject();
        done = done.thenCompose(nothing -> interpretOne(context, entry.getKey(), fields));
      }
    }
    return done;
  }

  private static CompletableFuture<Void> interpretOne(Context context, String kind, JsonObject fields) {
    int state = context.storage().get(STATE).orElse(0);
    switch (kind) {
      case "increment":
        context.storage().set(STATE, state + 1);
        break;
      case "send":
        context.send(messageTo(fields));
        break;
      case "send_after":
        if (fields.has("token")) {
          context.sendAfter(Duration.ofMillis(1), fields.get("token").getAsString(), messageTo(fields));
        } else {
          context.sendAfter(Duration.ofMillis(1), messageTo(fields));
        }
        break;
      case "cancel_send_after":
        context.cancelDelayedMessage(fields.get("token").getAsString());
        break;
      case "send_egress":
        context.send(
            EgressMessageBuilder.forEgress(name("discard-sink")).withCustomType(TEXT, "discarded-message").build());
        break;
      case "async_operation":
        // Its commands are due in either outcome, as in StateFun's own suite.
        return operation(fields.get("failure").getAsBoolean())
            .exceptionally(Interpreter::expected)
            .thenCompose(nothing -> interpret(context, fields.getAsJsonArray("commands")));
      case "verify":
        JsonObject result = new JsonObject();
        result.addProperty("id", Integer.parseInt(context.self().id()));
        result.add("round", fields.get("round"));
        result.add("expected", fields.get("expected"));
        result.addProperty("actual", state);
        context.send(
            EgressMessageBuilder.forEgress(name("verification-sink")).withCustomType(RESULT, result).build());
        break;
      default:
        throw new IllegalArgumentException(kind + " is no command");
    }
    return context.done();
  }

  private static CompletableFuture<Void> operation(boolean isFailure) {
    return CompletableFuture.runAsync(
        () -> {
          if (isFailure) {
            throw new OperationFailed();
          }
        },
        LATER);
  }

  private static Void expected(Throwable error) {
    if (!(error.getCause() instanceof OperationFailed)) {
      throw new IllegalStateException(error);
    }
    return null;
  }

  private static Message messageTo(JsonObject fields) {
    JsonObject commands = new JsonObject();
    commands.add("commands", fields.get("commands"));
    String id = fields.get("target").getAsString();
    return MessageBuilder.forAddress(FUNCTION, id).withCustomType(COMMANDS, commands).build();
  }

  private static TypeName name(String name) {
    return TypeName.typeNameOf(NAMESPACE, name);
  }

  private static <T> Type<T> json(String name, Class<T> type) {
    return SimpleType.simpleImmutableTypeFrom(
        name(name),
        value -> new Gson().toJson(value).getBytes(StandardCharsets.UTF_8),
        bytes -> new Gson().fromJson(new String(bytes, StandardCharsets.UTF_8), type));
  }
}
