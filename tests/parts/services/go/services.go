// Functions on the official Go SDK, served by the standard library.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	. "github.com/apache/flink-statefun/statefun-sdk-go/v3/pkg/statefun"
)

const slow = 30 * time.Second

var (
	counter = TypeNameFrom("lab/counter")
	out     = TypeNameFrom("lab/out")

	count    = ValueSpec{Name: "count", ValueType: Int32Type}
	visits   = ValueSpec{Name: "visits", ValueType: Int32Type}
	lastName = ValueSpec{Name: "last_name", ValueType: StringType, Expiration: ExpireAfterWrite(24 * time.Hour)}
	text     = ValueSpec{Name: "log", ValueType: StringType}
	other    = ValueSpec{Name: "other", ValueType: Int32Type}
	written  = ValueSpec{Name: "written", ValueType: Int32Type, Expiration: ExpireAfterWrite(time.Second)}
	called   = ValueSpec{Name: "called", ValueType: Int32Type, Expiration: ExpireAfterCall(time.Second)}
	number   = ValueSpec{Name: "kept", ValueType: Int32Type}
	word     = ValueSpec{Name: "kept", ValueType: StringType}
	more     = ValueSpec{Name: "more", ValueType: Int32Type}

	versions = map[string][]ValueSpec{"none": nil, "number": {number}, "text": {word}, "more": {number, more}}
)

func main() {
	functions := StatefulFunctionsBuilder()
	bind(functions, "lab/counter", countOne, count)
	bind(functions, "lab/greeter", greet, visits, lastName)
	bind(functions, "lab/failing", fail, count)
	bind(functions, "lab/log", keepText, text, other)
	bind(functions, "lab/callers", keepCaller, text)
	bind(functions, "lab/act", act, text)
	bind(functions, "lab/keep", keep, written, called)
	bind(functions, "lab/echo", echo)
	http.Handle("/statefun", functions.AsHandler())
	for version, specs := range versions {
		http.Handle("/statefun/"+version, versioned(version, specs).AsHandler())
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

func bind(functions StatefulFunctions, name string, function StatefulFunctionPointer, specs ...ValueSpec) {
	spec := StatefulFunctionSpec{FunctionType: TypeNameFrom(name), States: specs, Function: function}
	if err := functions.WithSpec(spec); err != nil {
		log.Fatal(err)
	}
}

func add(ctx Context, spec ValueSpec) int32 {
	var value int32
	ctx.Storage().Get(spec, &value)
	ctx.Storage().Set(spec, value+1)
	return value + 1
}

func countOne(ctx Context, message Message) error {
	counted := add(ctx, count)
	if ctx.Caller() != nil && message.IsString() && message.AsString() == "x" {
		ctx.Send(MessageBuilder{Target: *ctx.Caller(), Value: counted})
	}
	return nil
}

func greet(ctx Context, message Message) error {
	name, id := message.AsString(), ctx.Self().Id
	visited := add(ctx, visits)
	ctx.Storage().Set(lastName, name)
	token, err := NewCancellationToken("token-" + id)
	if err != nil {
		return err
	}
	ctx.Send(MessageBuilder{Target: Address{FunctionType: counter, Id: id}, Value: visited})
	ctx.SendAfterWithCancellationToken(20*time.Millisecond, token, textTo(counter, id+"-later", "tick"))
	if name == "cancel" {
		ctx.CancelDelayedMessage(token)
	}
	ctx.SendEgress(KafkaEgressBuilder{Target: out, Topic: "greetings", Key: id, Value: fmt.Sprint(name, " ", visited)})
	return nil
}

func fail(ctx Context, message Message) error {
	add(ctx, count)
	if message.AsString() == "fail" {
		return errors.New("as told")
	}
	return nil
}

// The functions of the conformance checklist, as in lab.py.

func remember(ctx Context, said string) {
	var before string
	if ctx.Storage().Get(text, &before) {
		said = before + "," + said
	}
	ctx.Storage().Set(text, said)
}

func keepText(ctx Context, message Message) error {
	remember(ctx, message.AsString())
	return nil
}

func keepCaller(ctx Context, message Message) error {
	who := "nobody"
	if ctx.Caller() != nil {
		who = ctx.Caller().FunctionType.String() + "/" + ctx.Caller().Id
	}
	remember(ctx, message.AsString()+" from "+who)
	return nil
}

func act(ctx Context, message Message) error {
	parts := strings.Split(message.AsString(), ";")
	remember(ctx, parts[0])
	for _, command := range parts[1:] {
		if err := obey(ctx, strings.Split(command, " ")); err != nil {
			return err
		}
	}
	return nil
}

func obey(ctx Context, words []string) error {
	switch words[0] {
	case "send":
		ctx.Send(textTo(TypeNameFrom(words[1]), words[2], words[3]))
	case "after":
		delay, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		later := textTo(TypeNameFrom(words[2]), words[3], words[4])
		if len(words) == 5 {
			ctx.SendAfter(time.Duration(delay)*time.Millisecond, later)
			return nil
		}
		token, err := NewCancellationToken(words[5])
		if err != nil {
			return err
		}
		ctx.SendAfterWithCancellationToken(time.Duration(delay)*time.Millisecond, token, later)
	case "cancel":
		token, err := NewCancellationToken(words[1])
		if err != nil {
			return err
		}
		ctx.CancelDelayedMessage(token)
	case "egress":
		ctx.SendEgress(GenericEgressBuilder{Target: out, Value: words[1], ValueType: StringType})
	default:
		return fmt.Errorf("%v is no command", words)
	}
	return nil
}

func keep(ctx Context, message Message) error {
	found := shown(ctx, written) + " " + shown(ctx, called)
	if message.AsString() == "set" {
		ctx.Storage().Set(written, int32(1))
		ctx.Storage().Set(called, int32(1))
	}
	reply(ctx, found)
	return nil
}

func echo(ctx Context, message Message) error {
	said := message.AsString()
	if said == "fail" {
		return errors.New("as told")
	}
	if said == "sleep" {
		time.Sleep(slow)
	}
	reply(ctx, said)
	return nil
}

func versioned(version string, specs []ValueSpec) StatefulFunctions {
	functions := StatefulFunctionsBuilder()
	function := func(ctx Context, message Message) error {
		said, before := message.AsString(), "nothing"
		switch version {
		case "text":
			ctx.Storage().Get(word, &before)
			ctx.Storage().Set(word, said)
		case "number", "more":
			value, err := strconv.Atoi(said)
			if err != nil {
				return err
			}
			before = shown(ctx, number)
			ctx.Storage().Set(number, int32(value))
		}
		if version == "more" {
			add(ctx, more)
		}
		reply(ctx, version+" was "+before)
		return nil
	}
	bind(functions, "lab/versioned", function, specs...)
	bind(functions, "lab/echo", echo)
	return functions
}

func shown(ctx Context, spec ValueSpec) string {
	var value int32
	if ctx.Storage().Get(spec, &value) {
		return fmt.Sprint(value)
	}
	return "nothing"
}

func reply(ctx Context, said string) {
	if ctx.Caller() != nil {
		ctx.Send(textTo(ctx.Caller().FunctionType, ctx.Caller().Id, said))
	}
}

func textTo(typename TypeName, id string, said string) MessageBuilder {
	return MessageBuilder{Target: Address{FunctionType: typename, Id: id}, Value: said}
}
