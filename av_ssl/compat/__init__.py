"""What depends on versions: installing stock fairseq, renamed keys; patches are in `av_ssl_fairseq_hook`."""
