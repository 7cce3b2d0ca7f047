// The command interpreter on the official Go SDK.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	. "github.com/apache/flink-statefun/statefun-sdk-go/v3/pkg/statefun"
)

const namespace = "statefun.smoke.e2e"

type commands struct {
	Commands []map[string]fields `json:"commands"`
}

type fields struct {
	Target   int                 `json:"target"`
	Commands []map[string]fields `json:"commands"`
	Token    string              `json:"token"`
	Failure  bool                `json:"failure"`
	Round    int                 `json:"round"`
	Expected int                 `json:"expected"`
}

type result struct {
	Id       int   `json:"id"`
	Round    int   `json:"round"`
	Expected int   `json:"expected"`
	Actual   int32 `json:"actual"`
}

var (
	function      = TypeNameFrom(namespace + "/command-interpreter-fn")
	sourceCommand = MakeJsonType(TypeNameFrom(namespace + "/source-command"))
	someCommands  = MakeJsonType(TypeNameFrom(namespace + "/commands"))
	verification  = MakeJsonType(TypeNameFrom(namespace + "/verification-result"))
	discarded     = MakeJsonType(TypeNameFrom(namespace + "/discarded"))
	state         = ValueSpec{Name: "state", ValueType: Int32Type}

	errAsTold = errors.New("the operation failed as told")
)

func main() {
	functions := StatefulFunctionsBuilder()
	spec := StatefulFunctionSpec{
		FunctionType: function,
		States:       []ValueSpec{state},
		Function:     StatefulFunctionPointer(invoke),
	}
	if err := functions.WithSpec(spec); err != nil {
		log.Fatal(err)
	}
	http.Handle("/statefun", functions.AsHandler())
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

func invoke(ctx Context, message Message) error {
	kind := someCommands
	if message.Is(sourceCommand) {
		kind = sourceCommand
	}
	var told commands
	if err := message.As(kind, &told); err != nil {
		return err
	}
	return interpret(ctx, told.Commands)
}

func interpret(ctx Context, told []map[string]fields) error {
	for _, command := range told {
		for kind, fields := range command {
			if err := interpretOne(ctx, kind, fields); err != nil {
				return err
			}
		}
	}
	return nil
}

func interpretOne(ctx Context, kind string, told fields) error {
	var value int32
	ctx.Storage().Get(state, &value)
	switch kind {
	case "increment":
		ctx.Storage().Set(state, value+1)
	case "send":
		ctx.Send(messageTo(told))
	case "send_after":
		if told.Token == "" {
			ctx.SendAfter(time.Millisecond, messageTo(told))
			return nil
		}
		token, err := NewCancellationToken(told.Token)
		if err != nil {
			return err
		}
		ctx.SendAfterWithCancellationToken(time.Millisecond, token, messageTo(told))
	case "cancel_send_after":
		token, err := NewCancellationToken(told.Token)
		if err != nil {
			return err
		}
		ctx.CancelDelayedMessage(token)
	case "send_egress":
		sendEgress(ctx, "discard-sink", "discarded-message", discarded)
	case "async_operation":
		// Its commands are due in either outcome, as in StateFun's own suite.
		if err := operation(told.Failure); err != nil && err != errAsTold {
			return err
		}
		return interpret(ctx, told.Commands)
	case "verify":
		id, err := strconv.Atoi(ctx.Self().Id)
		if err != nil {
			return err
		}
		sendEgress(ctx, "verification-sink", result{id, told.Round, told.Expected, value}, verification)
	default:
		return fmt.Errorf("%v is no command", kind)
	}
	return nil
}

func operation(isFailure bool) error {
	time.Sleep(time.Millisecond)
	if isFailure {
		return errAsTold
	}
	return nil
}

func sendEgress(ctx Context, name string, value interface{}, kind SimpleType) {
	ctx.SendEgress(GenericEgressBuilder{Target: TypeNameFrom(namespace + "/" + name), Value: value, ValueType: kind})
}

func messageTo(told fields) MessageBuilder {
	return MessageBuilder{
		Target:    Address{FunctionType: function, Id: strconv.Itoa(told.Target)},
		Value:     commands{told.Commands},
		ValueType: someCommands,
	}
}
