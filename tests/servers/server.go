// Go's net/http with its defaults. usage: server HOST:PORT
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	http.HandleFunc("/", answer)
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		answer(w, r)
	})
	http.HandleFunc("/download", func(w http.ResponseWriter, r *http.Request) {
		s, _ := strconv.Atoi(r.URL.Query().Get("s"))
		part := strings.Repeat("x", 1000)
		w.Header().Set("Content-Length", strconv.Itoa(s*10*len(part)))
		for i := 0; i < s*10; i++ {
			fmt.Fprint(w, part)
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answer(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "pid=%d\n", os.Getpid())
}
