// Carries out templates with Go's own text/template: one JSON object a line, in and out.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type order struct {
	Source string
	Data   map[string]any
}

type answer struct {
	Text  string
	Error string
}

func carryOut(one order) (told answer) {
	parsed, err := template.New("").Option("missingkey=zero").Parse(one.Source)
	if err != nil {
		return answer{Error: err.Error()}
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, one.Data); err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Text: text.String()}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<24)
	for lines.Scan() {
		var one order
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			panic(err)
		}
		line, _ := json.Marshal(carryOut(one))
		os.Stdout.Write(append(line, '\n'))
	}
}
