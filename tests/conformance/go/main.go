// A program as Go's users write one: net/http and encoding/json alone, against a service at os.Args[1].
// It prints one line for each thing that it tried, and ends with status 1 at the first surprise.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

type message struct {
	Role      string            `json:"role"`
	Content   string            `json:"content"`
	ToolCalls []json.RawMessage `json:"tool_calls,omitempty"`
}

// What Ollama's own Go client expects of a line; durations are integers.
type chatLine struct {
	Model         string        `json:"model"`
	CreatedAt     time.Time     `json:"created_at"`
	Message       message       `json:"message"`
	Done          bool          `json:"done"`
	DoneReason    string        `json:"done_reason"`
	TotalDuration time.Duration `json:"total_duration"`
	EvalCount     int           `json:"eval_count"`
	Error         string        `json:"error"`
}

var base string

func fail(what string, why any) {
	fmt.Printf("%s: %v\n", what, why)
	os.Exit(1)
}

func post(ctx context.Context, path string, body any) *http.Response {
	raw, err := json.Marshal(body)
	if err != nil {
		fail(path, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(raw))
	if err != nil {
		fail(path, err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		fail(path, err)
	}
	return answer
}

func chat(stream bool, more map[string]any) map[string]any {
	asked := map[string]any{
		"model":    "smollm2:135m",
		"messages": []message{{Role: "user", Content: "Name a colour."}},
		"stream":   stream,
		"options":  map[string]any{"temperature": 0, "num_predict": 24},
	}
	for name, value := range more {
		asked[name] = value
	}
	return asked
}

func wholeChat() {
	answer := post(context.Background(), "/api/chat", chat(false, nil))
	defer answer.Body.Close()
	var line chatLine
	if err := json.NewDecoder(answer.Body).Decode(&line); err != nil || answer.StatusCode != 200 {
		fail("chat", fmt.Sprint(answer.Status, err))
	}
	if !line.Done || line.Message.Content == "" || line.TotalDuration <= 0 || line.CreatedAt.IsZero() {
		fail("chat", line)
	}
	fmt.Println("chat ok")
}

func streamedChat() {
	answer := post(context.Background(), "/api/chat", chat(true, nil))
	defer answer.Body.Close()
	lines, last := 0, chatLine{}
	scanner := bufio.NewScanner(answer.Body)
	for scanner.Scan() {
		last = chatLine{}
		if err := json.Unmarshal(scanner.Bytes(), &last); err != nil {
			fail("stream", err)
		}
		lines++
	}
	if !last.Done || last.EvalCount == 0 || lines < 3 {
		fail("stream", fmt.Sprint(lines, last))
	}
	fmt.Println("stream ok")
}

func structured() {
	schema := map[string]any{
		"type":       "object",
		"properties": map[string]any{"colour": map[string]any{"type": "string", "maxLength": 12}},
		"required":   []string{"colour"},
	}
	answer := post(context.Background(), "/api/chat", chat(false, map[string]any{"format": schema}))
	defer answer.Body.Close()
	var line chatLine
	var form struct {
		Colour *string `json:"colour"`
	}
	err := json.NewDecoder(answer.Body).Decode(&line)
	if err == nil {
		err = json.Unmarshal([]byte(line.Message.Content), &form)
	}
	if err != nil || form.Colour == nil {
		fail("structured", fmt.Sprint(err, line.Message.Content))
	}
	fmt.Println("structured ok")
}

func tools() {
	tool := map[string]any{"type": "function", "function": map[string]any{
		"name":       "weather",
		"parameters": map[string]any{"type": "object", "properties": map[string]any{"city": map[string]string{"type": "string"}}},
	}}
	asked := chat(false, map[string]any{
		"tools": []any{tool}, "tool_choice": "required", "max_tokens": 64,
		"model": "smollm2:135m",
	})
	delete(asked, "options")
	answer := post(context.Background(), "/v1/chat/completions", asked)
	defer answer.Body.Close()
	var told struct {
		Choices []struct {
			Message struct {
				ToolCalls []struct {
					Function struct{ Name, Arguments string } `json:"function"`
				} `json:"tool_calls"`
			} `json:"message"`
		} `json:"choices"`
	}
	err := json.NewDecoder(answer.Body).Decode(&told)
	if err != nil || len(told.Choices) != 1 || len(told.Choices[0].Message.ToolCalls) == 0 {
		fail("tools", fmt.Sprint(answer.Status, err, told))
	}
	call := told.Choices[0].Message.ToolCalls[0].Function
	if call.Name != "weather" || !json.Valid([]byte(call.Arguments)) {
		fail("tools", call)
	}
	fmt.Println("tools ok")
}

func embeddings() {
	answer := post(context.Background(), "/api/embed", map[string]any{"model": "all-minilm", "input": []string{"a", "b"}})
	defer answer.Body.Close()
	var told struct {
		Embeddings [][]float32 `json:"embeddings"`
	}
	err := json.NewDecoder(answer.Body).Decode(&told)
	if err != nil || len(told.Embeddings) != 2 || len(told.Embeddings[0]) != 384 {
		fail("embeddings", fmt.Sprint(err, len(told.Embeddings)))
	}
	fmt.Println("embeddings ok")
}

func unknownModel() {
	answer := post(context.Background(), "/api/chat", chat(false, map[string]any{"model": "nobody"}))
	defer answer.Body.Close()
	raw, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != 404 || !strings.Contains(string(raw), "model 'nobody' not found") {
		fail("errors", string(raw))
	}
	fmt.Println("errors ok")
}

func cancelled() {
	ctx, cancel := context.WithCancel(context.Background())
	answer := post(ctx, "/api/chat", chat(true, map[string]any{"options": map[string]any{"num_predict": 2000}}))
	reader := bufio.NewReader(answer.Body)
	if _, err := reader.ReadBytes('\n'); err != nil {
		fail("cancel", err)
	}
	cancel()
	if _, err := io.ReadAll(reader); !errors.Is(err, context.Canceled) {
		fail("cancel", err)
	}
	answer.Body.Close()
	fmt.Println("cancel ok")
}

func main() {
	base = os.Args[1]
	for _, try := range []func(){wholeChat, streamedChat, structured, tools, embeddings, unknownModel, cancelled} {
		try()
	}
}
