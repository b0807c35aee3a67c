# Files, plain and not, and the command line.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
printf hello > v
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file v --plain
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
echo aGVsbG8= > v
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file v
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --plain
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-set-value --base64 d29ybGQ= 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-set-value --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 d29yZA==
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-set-value --base64=eA== --secret=3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH -q secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH -q secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file v
VIRSH -q secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
