# Nothing, something, and what cannot be printed.
VIRSH secret-list
VIRSH -q secret-list
printf "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>h\303\251\344\270\255\n\tx</name></usage></secret>" > o.xml
VIRSH secret-define o.xml
VIRSH secret-list
VIRSH -q secret-list
