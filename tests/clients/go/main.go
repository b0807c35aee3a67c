// What a client that isn't libvirt's own sees of a secret daemon: digitalocean/go-libvirt, which speaks the protocol in
// Go alone. The transcript is the same on every run, so that two daemons' can be compared line by line.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o client main.go tap.go
//	client SOCKET URI
//
// The daemon must hold no secrets; it holds none afterwards. Ends with 0 once it ran through, whatever the answers.
// The library leaves out an error's domain and all secret events, so the connection is listened to as well. And it asks
// for what the C library refuses before it asks: what is too long, or not for read-only connections.
//
// Needs Debian's golang-go and golang-github-digitalocean-go-libvirt-dev.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// How long to wait for events that must come.
const patience = 20 * time.Second

var typeNames = []string{"none", "volume", "ceph", "iscsi", "tls", "vtpm"}
var children = []string{"name", "volume", "name", "target", "name", "name"}

func main() {
	if len(os.Args) != 3 {
		fail("Say which daemon: client SOCKET URI")
	}
	socket, uri := os.Args[1], os.Args[2]
	c := connect(socket, uri, false)
	if number, err := c.ConnectNumOfSecrets(); err != nil || number != 0 {
		fail("The daemon has secrets already: start it on an empty directory")
	}
	theConnection(c, uri)
	definitions(c)
	values(c)
	lookUps(c)
	lists(c)
	readOnly(c, connect(socket, uri, true))
	events(c, connect(socket, uri, false))
	identity(c)
	atOnce(c)
	otherDrivers(c)
	section("the end")
	forgetAll(c)
	c.say("secrets", func() (interface{}, error) { return c.ConnectNumOfSecrets() })
	c.say("open twice", func() (interface{}, error) {
		return "opened", c.ConnectOpen(libvirt.OptString{uri}, 0)
	})
	c.say("disconnect", func() (interface{}, error) { return "disconnected", c.Disconnect() })
	_, err := c.ConnectNumOfSecrets()
	fmt.Println("asked afterwards:", err)
	wrong := client{Libvirt: libvirt.NewWithDialer(&tap{socket: socket})}
	fmt.Println("another URI:", wrong.ConnectToURI("secret:///elsewhere"))
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}

func theConnection(c client, uri string) {
	section("the connection")
	c.say("type", func() (interface{}, error) { return c.ConnectGetType() })
	c.say("uri", func() (interface{}, error) {
		is, err := c.ConnectGetUri()
		return is == uri, err
	})
	c.say("version", func() (interface{}, error) { return c.ConnectGetVersion() })
	c.say("library version", func() (interface{}, error) {
		version, err := c.ConnectGetLibVersion()
		return version >= 9000000, err
	})
	c.say("hostname", func() (interface{}, error) { return c.ConnectGetHostname() })
	c.say("secure", func() (interface{}, error) { return c.ConnectIsSecure() })
	c.say("authentication", func() (interface{}, error) { return c.AuthList() })
	for feature := int32(0); feature < 20; feature++ {
		// The library doesn't answer the pings that 10 would start.
		if feature != 10 {
			c.say(fmt.Sprint("feature ", feature), func() (interface{}, error) { return c.ConnectSupportsFeature(feature) })
		}
	}
	c.say("close callback", func() (interface{}, error) { return "registered", c.ConnectRegisterCloseCallback() })
	c.say("no close callback", func() (interface{}, error) { return "deregistered", c.ConnectUnregisterCloseCallback() })
}

func definitions(c client) {
	section("definitions")
	define := func(label, document string, flags uint32) {
		c.say(label, func() (interface{}, error) { return c.SecretDefineXML(document, flags) })
	}
	define("no uuid", "<secret/>", 0)
	for number := range typeNames {
		define("type "+typeNames[number], document(number, number, "name", "no", "no"), 0)
	}
	define("private and ephemeral", document(8, 2, "both", "yes", "yes"), 0)
	c.say("shown", func() (interface{}, error) { return c.SecretGetXMLDesc(secret(8), 0) })
	c.say("shown with flag 1", func() (interface{}, error) { return c.SecretGetXMLDesc(secret(8), 1) })
	define("flag 2", document(9, 0, "", "no", "no"), 2)
	define("validated", document(9, 4, "valid", "no", "no"), 1)
	define("not valid", document(10, 1, "a/b", "no", "no"), 1)
	define("defined again", document(1, 1, "name", "yes", "no"), 0)
	define("no longer private", document(1, 1, "name", "no", "no"), 0)
	define("another name", document(1, 1, "other", "yes", "no"), 0)
	define("usage is taken", document(11, 1, "name", "no", "no"), 0)
	define("no XML", "secret", 0)
	define("another root", "<domain/>", 0)
	define("after a NUL", document(11, 0, "", "no", "no")+"\x00</nonsense>", 0)
	c.say("too long", func() (interface{}, error) {
		return c.SecretDefineXML("<secret>"+strings.Repeat(" ", 4<<20)+"</secret>", 0)
	})
	forgetAll(c)
}

func values(c client) {
	section("values")
	set := func(label string, number int, value []byte, flags uint32) {
		c.say(label, func() (interface{}, error) { return "done", c.SecretSetValue(secret(number), value, flags) })
	}
	get := func(label string, number int) {
		c.say(label, func() (interface{}, error) { return c.SecretGetValue(secret(number), 0) })
	}
	c.SecretDefineXML(document(20, 1, "/a", "no", "no"), 0)
	get("none yet", 20)
	set("set", 20, []byte("open sesame"), 0)
	get("it", 20)
	set("empty", 20, nil, 0)
	set("with NULs", 20, []byte("\x00\xff\x00nul\n\x00"), 0)
	get("it", 20)
	long := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	set("65,536 bytes", 20, long, 0)
	get("they", 20)
	set("65,537 bytes", 20, append(long, '.'), 0)
	get("still", 20)
	set("set with flag 1", 20, []byte("x"), 1)
	c.say("get with flag 1", func() (interface{}, error) { return c.SecretGetValue(secret(20), 1) })
	set("set unknown", 21, []byte("x"), 0)
	set("set unknown to nothing, with flag 1", 21, nil, 1)
	get("get unknown", 21)
	c.SecretDefineXML(document(22, 0, "", "yes", "yes"), 0)
	set("private", 22, []byte("hidden"), 0)
	get("it", 22)
	c.say("undefine", func() (interface{}, error) { return "done", c.SecretUndefine(secret(22)) })
	get("it", 22)
	c.say("undefine again", func() (interface{}, error) { return "done", c.SecretUndefine(secret(22)) })
	forgetAll(c)
}

func lookUps(c client) {
	section("look-ups")
	for usage := 1; usage < 6; usage++ {
		c.SecretDefineXML(document(30+usage, usage, "same", "no", "no"), 0)
	}
	c.say("by uuid", func() (interface{}, error) { return c.SecretLookupByUUID(uuid(31)) })
	c.say("by unknown uuid", func() (interface{}, error) { return c.SecretLookupByUUID(uuid(30)) })
	for usage := int32(-1); usage < 7; usage++ {
		c.say(fmt.Sprint("by usage of type ", usage), func() (interface{}, error) {
			return c.SecretLookupByUsage(usage, "same")
		})
	}
	c.say("by unknown usage", func() (interface{}, error) { return c.SecretLookupByUsage(2, "other") })
	forgetAll(c)
}

func lists(c client) {
	section("lists")
	for number := 0; number < 8; number++ {
		answer := []string{"no", "yes"}
		c.SecretDefineXML(document(40+number, 0, "", answer[number&1], answer[number>>1&1]), 0)
	}
	c.say("how many", func() (interface{}, error) { return c.ConnectNumOfSecrets() })
	for _, most := range []int32{16384, 16385, -1, 0} {
		c.say(fmt.Sprint("uuids, at most ", most), func() (interface{}, error) { return c.ConnectListSecrets(most) })
	}
	c.say("uuids, at most 3", func() (interface{}, error) {
		uuids, err := c.ConnectListSecrets(3)
		return len(uuids), err
	})
	all := func(results int32, flags libvirt.ConnectListAllSecretsFlags) {
		c.say(fmt.Sprintf("all with flags %d, results %d", flags, results), func() (interface{}, error) {
			secrets, number, err := c.ConnectListAllSecrets(results, flags)
			var uuids []string
			for _, entry := range secrets {
				uuids = append(uuids, fmt.Sprintf("%x", entry.UUID[15]))
			}
			sort.Strings(uuids)
			return fmt.Sprintf("%d of %s", number, uuids), err
		})
	}
	for flags := libvirt.ConnectListAllSecretsFlags(0); flags < 18; flags++ {
		all(0, flags)
		all(1, flags)
	}
	all(7, 0)
	forgetAll(c)
}

func readOnly(c, reader client) {
	section("a read-only connection")
	c.SecretDefineXML(document(50, 2, "seen", "no", "no"), 0)
	c.SecretSetValue(secret(50), []byte("unseen"), 0)
	reader.say("how many", func() (interface{}, error) { return reader.ConnectNumOfSecrets() })
	reader.say("look-up", func() (interface{}, error) { return reader.SecretLookupByUUID(uuid(50)) })
	reader.say("shown", func() (interface{}, error) { return reader.SecretGetXMLDesc(secret(50), 0) })
	reader.say("get", func() (interface{}, error) { return reader.SecretGetValue(secret(50), 0) })
	reader.say("get unknown, with flag 1", func() (interface{}, error) { return reader.SecretGetValue(secret(51), 1) })
	reader.say("set", func() (interface{}, error) { return "done", reader.SecretSetValue(secret(50), []byte("x"), 0) })
	reader.say("set nothing", func() (interface{}, error) { return "done", reader.SecretSetValue(secret(51), nil, 1) })
	reader.say("define", func() (interface{}, error) {
		return reader.SecretDefineXML(document(51, 0, "", "no", "no"), 0)
	})
	reader.say("define nonsense, with flag 2", func() (interface{}, error) {
		return reader.SecretDefineXML("nonsense", 2)
	})
	reader.say("undefine", func() (interface{}, error) { return "done", reader.SecretUndefine(secret(50)) })
	reader.say("undefine unknown", func() (interface{}, error) { return "done", reader.SecretUndefine(secret(51)) })
	reader.say("disconnect", func() (interface{}, error) { return "disconnected", reader.Disconnect() })
	c.say("untouched", func() (interface{}, error) { return c.SecretGetValue(secret(50), 0) })
	forgetAll(c)
}

func events(c, other client) {
	section("events")
	names := map[client]map[int32]string{c: {}, other: {}}
	ids := map[string]int32{}
	on := func(who client, name string, kind int32, only libvirt.OptSecret) {
		who.say("register "+name, func() (interface{}, error) {
			id, err := who.ConnectSecretEventRegisterAny(kind, only)
			if err == nil {
				names[who][id], ids[name] = name, id
			}
			return id >= 0, err
		})
	}
	// When this one is told of the sign, everything before it has come; its secret need not exist yet.
	sign := secret(0xffff)
	on(c, "sign", 0, libvirt.OptSecret{sign})
	on(other, "sign elsewhere", 0, libvirt.OptSecret{sign})
	after := func(label string, do func() (interface{}, error)) {
		c.say(label, do)
		c.SecretDefineXML(document(0xffff, 0, "", "no", "yes"), 0)
		c.SecretUndefine(sign)
		for _, who := range []client{c, other} {
			var heard []string
			for signs := 0; signs < 2; {
				select {
				case event := <-who.tap.events:
					name, known := names[who][event.id]
					if strings.HasPrefix(name, "sign") {
						signs++
					} else if event.secret.UUID != sign.UUID {
						heard = append(heard, fmt.Sprintf("  %s (known: %t): %s", name, known, event.what))
					}
				case <-time.After(patience):
					fmt.Println("  some events never came")
					signs = 2
				}
			}
			sort.Strings(heard)
			for _, line := range heard {
				fmt.Println(line)
			}
		}
	}
	on(c, "lifecycles", 0, nil)
	on(c, "values", 1, nil)
	on(c, "lifecycles again", 0, nil)
	on(c, "lifecycles of 60", 0, libvirt.OptSecret{secret(60)})
	on(c, "lifecycles of 60 again", 0, libvirt.OptSecret{secret(60)})
	on(c, "values of 60", 1, libvirt.OptSecret{secret(60)})
	on(c, "event 2", 2, nil)
	on(c, "event -1", -1, nil)
	on(other, "values of 60 elsewhere", 1, libvirt.OptSecret{secret(60)})
	deregister := func(name string, id int32) {
		c.say("deregister "+name, func() (interface{}, error) {
			return "deregistered", c.ConnectSecretEventDeregisterAny(id)
		})
	}
	deregister("the last", 1<<31-1)
	deregister("-1", -1)
	define := func(number int) func() (interface{}, error) {
		return func() (interface{}, error) {
			return c.SecretDefineXML(document(number, 2, fmt.Sprint(number), "no", "no"), 0)
		}
	}
	set := func(number int) func() (interface{}, error) {
		return func() (interface{}, error) { return "done", c.SecretSetValue(secret(number), []byte("x"), 0) }
	}
	undefine := func(number int) func() (interface{}, error) {
		return func() (interface{}, error) { return "done", c.SecretUndefine(secret(number)) }
	}
	after("define 60", define(60))
	after("define 60 again", define(60))
	after("define 61", define(61))
	after("set 60", set(60))
	after("set 61", set(61))
	after("set unknown", set(62))
	after("set 61 elsewhere", func() (interface{}, error) {
		return "done", other.SecretSetValue(secret(61), []byte("y"), 0)
	})
	deregister("lifecycles", ids["lifecycles"])
	c.say("the id of another connection", func() (interface{}, error) {
		return "deregistered", c.ConnectSecretEventDeregisterAny(ids["values of 60 elsewhere"])
	})
	after("undefine 61", undefine(61))
	after("undefine 60", undefine(60))
	other.say("disconnect", func() (interface{}, error) { return "disconnected", other.Disconnect() })
	for _, name := range []string{"values", "lifecycles of 60", "values of 60", "sign"} {
		deregister(name, ids[name])
	}
	forgetAll(c)
}

func identity(c client) {
	section("identity")
	be := func(label string, parameters ...libvirt.TypedParam) {
		c.say(label, func() (interface{}, error) { return "done", c.ConnectSetIdentity(parameters, 0) })
	}
	name := libvirt.TypedParam{Field: "user-name", Value: *libvirt.NewTypedParamValueString("fred")}
	be("a name", name)
	be("a name and a number", name,
		libvirt.TypedParam{Field: "unix-user-id", Value: *libvirt.NewTypedParamValueUllong(4711)},
		libvirt.TypedParam{Field: "process-id", Value: *libvirt.NewTypedParamValueLlong(4711)})
	be("twice", name, name)
	be("unknown", libvirt.TypedParam{Field: "shoe-size", Value: *libvirt.NewTypedParamValueInt(46)})
	be("of another type", libvirt.TypedParam{Field: "unix-user-id", Value: *libvirt.NewTypedParamValueInt(4711)})
	be("a wrong token", libvirt.TypedParam{Field: "system.token", Value: *libvirt.NewTypedParamValueString("0")})
	be("none")
}

func atOnce(c client) {
	section("at once")
	var all sync.WaitGroup
	wrong := make(chan string, 20*10)
	for n := 0; n < 20; n++ {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			c.SecretDefineXML(document(number, 0, "", "no", "no"), 0)
			for turn := 0; turn < 10; turn++ {
				value := bytes.Repeat([]byte(fmt.Sprint(number, turn, " ")), 1+turn*100)
				set := c.SecretSetValue(secret(number), value, 0)
				is, get := c.SecretGetValue(secret(number), 0)
				if set != nil || get != nil || !bytes.Equal(is, value) {
					wrong <- fmt.Sprint(number, " ", turn, ": ", set, " ", get)
				}
			}
		}(100 + n)
	}
	all.Wait()
	fmt.Println("twenty on one connection, wrong answers:", len(wrong))
	for len(wrong) > 0 {
		fmt.Println(" ", <-wrong)
	}
	forgetAll(c)
}

func otherDrivers(c client) {
	section("other drivers")
	c.say("capabilities", func() (interface{}, error) { return c.ConnectGetCapabilities() })
	c.say("domains", func() (interface{}, error) {
		_, number, err := c.ConnectListAllDomains(1, 0)
		return number, err
	})
	c.say("networks", func() (interface{}, error) {
		_, number, err := c.ConnectListAllNetworks(1, 0)
		return number, err
	})
	c.say("pools", func() (interface{}, error) {
		_, number, err := c.ConnectListAllStoragePools(1, 0)
		return number, err
	})
	c.say("a domain's monitor", func() (interface{}, error) {
		return c.QEMUDomainMonitorCommand(libvirt.Domain{Name: "x"}, "{}", 0)
	})
	c.say("an event as a call", func() (interface{}, error) { return "done", c.SecretEventLifecycle() })
}

// A connection, and what is heard on it besides.
type client struct {
	*libvirt.Libvirt
	tap *tap
}

func connect(socket, uri string, readOnly bool) client {
	tap := &tap{socket: socket, readOnly: readOnly, events: make(chan event, 1000)}
	c := client{libvirt.NewWithDialer(tap), tap}
	if err := c.ConnectToURI(libvirt.ConnectURI(uri)); err != nil {
		fail(fmt.Sprintf("Failed to connect to %s: %v", socket, err))
	}
	return c
}

func (c client) say(label string, call func() (interface{}, error)) {
	answer, err := call()
	if err != nil {
		fmt.Printf("%s: error %s\n", label, c.inFull(err))
		return
	}
	fmt.Printf("%s: %s\n", label, masked(shown(answer)))
}

func (c client) inFull(err error) string {
	got, ok := err.(libvirt.Error)
	if !ok {
		return fmt.Sprintf("%q, on the wire %s", err, c.tap.takeError())
	}
	raw := c.tap.takeError()
	if !strings.HasPrefix(raw, fmt.Sprintf("code=%d ", got.Code)) {
		return fmt.Sprintf("code=%d, but on the wire %s", got.Code, raw)
	}
	return raw
}

func shown(answer interface{}) string {
	switch answer := answer.(type) {
	case libvirt.Secret:
		return dashed(answer.UUID) + "/" + typeName(answer.UsageType) + "/" + answer.UsageID
	case []byte:
		start := answer
		if len(start) > 16 {
			start = start[:16]
		}
		return fmt.Sprintf("%d bytes %x", len(answer), start)
	case []string:
		sort.Strings(answer)
		return fmt.Sprintf("%q", answer)
	case string:
		return fmt.Sprintf("%q", answer)
	}
	return fmt.Sprint(answer)
}

func typeName(number int32) string {
	if number < 0 || int(number) >= len(typeNames) {
		return fmt.Sprint("type ", number)
	}
	return typeNames[number]
}

func section(title string) {
	fmt.Printf("\n== %s\n", title)
}

// The UUIDs of this program all start alike, so that the others are known for made up.
func uuid(number int) (uuid libvirt.UUID) {
	copy(uuid[:], "\x60\x60\x60\x60\x00\x00\x40\x00\x80\x00")
	binary.BigEndian.PutUint32(uuid[12:], uint32(number))
	return uuid
}

func dashed(uuid libvirt.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
}

var anyUUID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

func masked(line string) string {
	return anyUUID.ReplaceAllStringFunc(line, func(found string) string {
		if strings.HasPrefix(found, "60606060-0000-4000-8000-") {
			return found
		}
		return "<uuid>"
	})
}

// A handle; of what it says, a daemon looks at the UUID alone.
func secret(number int) libvirt.Secret {
	return libvirt.Secret{UUID: uuid(number), UsageType: 77, UsageID: "not looked at"}
}

func document(number, usage int, name, private, ephemeral string) string {
	inside := ""
	if usage != 0 {
		inside = fmt.Sprintf("<usage type='%s'><%s>%s</%[2]s></usage>", typeNames[usage], children[usage], name)
	}
	return fmt.Sprintf("<secret ephemeral='%s' private='%s'><uuid>%s</uuid>%s</secret>",
		ephemeral, private, dashed(uuid(number)), inside)
}

func forgetAll(c client) {
	secrets, _, _ := c.ConnectListAllSecrets(1, 0)
	for _, entry := range secrets {
		c.SecretUndefine(entry)
	}
}
